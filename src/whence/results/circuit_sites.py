"""Where a circuit's nodes stand along the forward pass: sites in order, as the rows and columns of pictures.

    embed, then in each layer resid_pre, attention (or ssm), resid_mid, MLP, resid_post; then the metric

Cost: one look at each distinct name. It knows no model: of sites that run side by side, attention comes first.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from whence.results.keys import Node
from whence.results.names import ENDS
from whence.results.nodes import NodeTable

_STEMS = (
    *("embed", "pos_embed", "resid_pre", "attn_z", "attn", "attn_out", "ssm"),
    *("resid_mid", "mlp", "moe", "mlp_out", "resid_post", "block"),
)
_BEFORE = ("embed", "pos_embed")  # their features are of layer 0, and yet before everything else in it
_RANK = {stem: rank for rank, stem in enumerate(_STEMS)}
_COLUMN = {"pos_embed": "embed", "attn_z": "attn", "attn_out": "attn", "moe": "mlp", "mlp_out": "mlp", "block": "resid"}
COLUMNS = ("embed", "attn", "ssm", "mlp", "resid", "metric")


class Site(NamedTuple):
    """A place along the forward pass; sites compare in its order."""

    layer: int
    rank: int
    stem: str

    @property
    def column(self) -> str:
        """What kind of place it is: embed, attn, ssm, mlp, resid or metric."""
        return _COLUMN.get(self.stem, "resid" if self.stem.startswith("resid") else self.stem)

    @property
    def title(self) -> str:
        """Its name in a picture, such as "attn 2"."""
        name = self.stem if self.stem in ("resid_pre", "resid_mid") else self.column
        return name if self.stem == "metric" or self.layer < 0 else f"{name} {self.layer}"


def site_of(node: Node) -> Site:
    """The site a node belongs to.

    Args:
        node: A node of a circuit.

    Example:
        >>> site_of(Node("resid_post.feature", 2, 7)).title
        'resid 2'
    """
    stem = node.name.partition(".")[0]
    if stem == "metric":
        return Site(1 << 31, _rank(stem), stem)  # behind every layer
    return Site(-1 if node.layer is None or stem in _BEFORE else node.layer, _rank(stem), stem)


def forward_order(nodes: NodeTable) -> Int[Tensor, " node"]:
    """The numbers of the nodes in a circuit's order: by site, unit, end and position; in a site its error last.

    Args:
        nodes: Nodes in any order.

    Example:
        >>> forward_order(NodeTable.from_nodes([Node("metric"), Node("mlp.error", 0), Node("mlp.feature", 0, 3)]))
        tensor([2, 1, 0])
    """
    ranks = torch.tensor([_rank(name) for name in nodes.names], dtype=torch.int64)
    errors = nodes.named(lambda name: name.endswith(".error")).long()
    ends = torch.where(nodes.end < 0, torch.tensor(len(ENDS)), nodes.end)  # a head writes after it has read
    metric = nodes.named(lambda name: name == "metric").long()
    before = nodes.named(lambda name: name.partition(".")[0] in _BEFORE)
    layers = torch.where(before, torch.tensor(-1), nodes.layer)
    order = torch.arange(len(nodes))
    for key in (nodes.position, ends, nodes.inner, nodes.index, errors, ranks[nodes.name], layers, metric):
        order = order[key[order].argsort(stable=True)]  # the last decides first
    return order


def _rank(name: str) -> int:
    return _RANK.get(name.partition(".")[0], len(_STEMS))
