"""What a node is to a graph, by its name: what explains, what is explained, and what stays unexplained.

    feature    a unit with a row of its own: it reads, and it writes
    error      what no unit carries: errors, and whole writes that no dictionary takes apart
    token      token embeddings and learned positions
    constant   the same on every prompt: biases, and whole writes at position 0, where a prompt begins alike
    rest       active units without a row of their own, summed
    output     logits, the metric

Cost: one look at each distinct name. It knows no edges.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from whence.results.nodes import NodeTable

Kind = Literal["feature", "error", "token", "constant", "rest", "output"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NAMED: dict[str, Kind] = {
    "embed": "token",
    "pos_embed": "token",
    "rest": "rest",
    "output": "output",
    "metric": "output",
}


def of_kind(nodes: NodeTable, *kinds: Kind) -> Bool[Tensor, " node"]:
    """Which nodes are of one of these kinds.

    Args:
        nodes: All of them.
        kinds: Those wanted.

    Example:
        >>> of_kind(NodeTable.from_nodes([Node("bias"), Node("mlp.error", 0, position=1)]), "error").tolist()
        [False, True]
    """
    found = nodes.named(lambda name: _kind(name) in kinds)
    begins = (nodes.position == 0) & nodes.named(_is_whole)
    return torch.where(begins, torch.tensor("constant" in kinds), found)


def kind_of(nodes: NodeTable) -> list[Kind]:
    """The kind of each node."""
    out: list[Kind] = ["error"] * len(nodes)
    for kind in KINDS:
        for row in of_kind(nodes, kind).nonzero().reshape(-1).tolist():
            out[row] = kind
    return out


def _kind(name: str) -> Kind:
    if name in _NAMED:
        return _NAMED[name]
    if name == "bias" or name.endswith(".bias"):
        return "constant"
    return "feature" if name.endswith((".feature", ".neuron")) else "error"


def _is_whole(name: str) -> bool:
    """Whether it is a sublayer's write, rather than what a dictionary misses of it."""
    return _kind(name) == "error" and not name.endswith(".error")
