"""The names of MIB's edge files, and which nodes and edges an architecture has.

Every node reads what all earlier ones wrote: a head by q, k and v; in a parallel block the MLP does not read its own
layer's heads. Cost: one text an edge. It knows nothing of scores.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from whence.results.keys import Node

_NAME = re.compile(r"(?P<end>input|logits)|m(?P<mlp>[0-9]+)|a(?P<layer>[0-9]+)\.h(?P<head>[0-9]+)(?:<(?P<to>[qkv])>)?")
_ENDS = {"input": "embed", "logits": "metric"}


def key_of(name: str) -> str:
    """The key of a node in a file, with the end that an edge leads to.

    Args:
        name: Such as "a3.h2<q>".

    Raises:
        ValueError: No such name.

    Example:
        >>> key_of("a3.h2<q>")
        '3.attn.head:2.q'
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is none of input, logits, m<layer> and a<layer>.h<head>")
    if match["end"]:
        return _ENDS[match["end"]]
    if match["mlp"]:
        return f"{int(match['mlp'])}.mlp"
    return f"{int(match['layer'])}.attn.head:{int(match['head'])}{'.' + match['to'] if match['to'] else ''}"


def name_of(node: Node) -> str:
    """The name of a node in a file; the inverse of `key_of`.

    Args:
        node: An embedding, a head or one of its ends, an MLP or the metric, without a position.

    Raises:
        ValueError: A node that such a file cannot name.

    Example:
        >>> name_of(Node("attn.head", 3, 2, "q"))
        'a3.h2<q>'
    """
    if node.position is None:
        match node.name:
            case "embed" if node.index is None:
                return "input"
            case "metric":
                return "logits"
            case "mlp":
                return f"m{node.layer}"
            case "attn.head" if node.end in (None, "q", "k", "v"):
                return f"a{node.layer}.h{node.index}{f'<{node.end}>' if node.end else ''}"
            case _:
                pass
    raise ValueError(
        f"'{node}' has no name in MIB's edge files, which know embed, heads, whole MLPs and the metric, positions "
        "summed. Make the circuit over heads and MLPs, with aggregate='sum'."
    )


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, as such files give them."""

    n_layers: int
    n_heads: int
    parallel_attn_mlp: bool
    d_model: int

    @staticmethod
    def of(cfg: Mapping[str, Any] | None) -> "Sizes":
        """The sizes in a `cfg`.

        Args:
            cfg: n_layers, n_heads, parallel_attn_mlp and d_model.

        Raises:
            ValueError: None, or one without them.
        """
        names = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")
        missing = [name for name in names if cfg is None or name not in cfg]
        if cfg is None or missing:
            raise ValueError(f"MIB's edge files need the model's {', '.join(missing)}: give them as cfg={{...}}.")
        n_layers, n_heads, parallel, d_model = (cfg[name] for name in names)
        return Sizes(int(n_layers), int(n_heads), bool(parallel), int(d_model))

    @property
    def cfg(self) -> dict[str, Any]:
        """The sizes by name."""
        return dict(vars(self))

    def nodes(self) -> list[str]:
        """All nodes, in forward order."""
        return ["input", *(name for layer in range(self.n_layers) for name in self._layer(layer)), "logits"]

    def edges(self) -> Iterator[str]:
        """All edges."""
        before = ["input"]
        for layer in range(self.n_layers):
            *heads, mlp = self._layer(layer)
            yield from (f"{source}->{head}<{end}>" for head in heads for end in "qkv" for source in before)
            yield from (f"{source}->{mlp}" for source in ([] if self.parallel_attn_mlp else heads) + before)
            before += [*heads, mlp]
        yield from (f"{source}->logits" for source in before)

    def _layer(self, layer: int) -> list[str]:
        return [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]
