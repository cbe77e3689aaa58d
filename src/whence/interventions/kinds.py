"""What to do to a node, as plain data: nothing runs before `intervene` or `generate`.

A node has one value a token: a number for a neuron or a feature (its activation), a vector for the rest (of a head,
what its channels carry into the output map; of a sublayer, what it adds to the stream, before a family's constant
multiplier). With v that value, an intervention puts in its place

    zero       0                          scale     v * value
    set        value                      add       v + value
    mean       the mean of v over all tokens of the source prompts (None: of the prompt itself, unchanged)
    resample   v of a random token of the source prompts, another for each token
    patch      v of the same position in the source prompt

Which tokens: the node's own `@position`, or `positions`, or else all of them, in `generate` also those to come.
Of several on one node, each is given what those before it left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from whence.results.keys import Node

Operation: TypeAlias = Literal["zero", "scale", "set", "add", "mean", "resample", "patch"]
Value: TypeAlias = float | Tensor
Positions: TypeAlias = int | slice | Sequence[int] | None


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change to one node: made by `ablate`, `patch`, `steer` and `set_value`.

    Raises:
        ValueError: positions given twice, a slice with a step, or a value that is not finite.
    """

    node: Node
    operation: Operation
    value: Value | None = None
    source: Any = None
    positions: Positions = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.positions is not None and self.node.position is not None:
            raise ValueError(f"{self.node} names a position and positions={self.positions!r} others; give one of them")
        if isinstance(self.positions, slice) and self.positions.step not in (None, 1):
            raise ValueError(f"{self.node}: positions={self.positions} has a step; give a list of positions instead")
        if self.value is not None and not bool(torch.as_tensor(self.value).isfinite().all()):
            raise ValueError(f"{self!r}: the value holds NaN or infinity; give finite numbers")

    def __repr__(self) -> str:
        """The operation and the node, with the value where it is a number."""
        value = f", {self.value:g}" if isinstance(self.value, int | float) else ""
        where = "" if self.positions is None else f", positions={self.positions}"
        return f"{self.operation}({str(self.node)!r}{value}{where})"


def ablate(
    node: str | Node,
    value: Literal["zero", "mean", "resample"] = "zero",
    *,
    source: Any = None,
    positions: Positions = None,
    seed: int = 0,
) -> Intervention:
    """Take a node out.

    Args:
        node: a key such as "2.attn.head:3", "2.mlp@5", "2.attn.head:3@5~1" or "2.mlp.feature:7", or a Node.
        value: what to leave in its place.
        source: prompts to take the mean or the samples from; None: the prompt itself.
        positions: tokens to do it at, if the node names none: one, several, or a slice (open-ended ones go on in
            `generate`). Negative ones count from the prompt's end.
        seed: which samples "resample" draws.

    Raises:
        ValueError: an unknown value, a malformed key, or positions given twice.

    Example:
        >>> ablate("2.attn.head:3@5")
        zero('2.attn.head:3@5')
    """
    if value not in ("zero", "mean", "resample"):
        raise ValueError(f"ablate({node!s}, {value!r}): a node is replaced by 'zero', 'mean' or 'resample'")
    if value == "zero" and source is not None:
        raise ValueError(f"ablate({node!s}): zero takes no source; did you mean value='mean' or 'resample'?")
    return Intervention(_node(node), value, source=source, positions=positions, seed=seed)


def patch(node: str | Node, source: Any, *, positions: Positions = None) -> Intervention:
    """Give a node the value it has at the same position of another prompt.

    Args:
        node: as in `ablate`.
        source: the other prompt, long enough to have every position asked for.
        positions: as in `ablate`.

    Example:
        >>> patch("3.resid_post@4", "The capital of Ohio")
        patch('3.resid_post@4')
    """
    return Intervention(_node(node), "patch", source=source, positions=positions)


def steer(
    node: str | Node, *, add: Value | None = None, scale: float | None = None, positions: Positions = None
) -> Intervention:
    """Add to a node's value, or multiply it.

    Args:
        node: as in `ablate`.
        add: a number, or for a node whose value is a vector a vector of that width.
        scale: a factor.
        positions: as in `ablate`.

    Raises:
        ValueError: both or neither of `add` and `scale`.

    Example:
        >>> steer("2.mlp.feature:7", scale=2.0)
        scale('2.mlp.feature:7', 2)
    """
    if (add is None) == (scale is None):
        raise ValueError(f"steer({node!s}): give one of add= and scale=")
    if add is not None:
        return Intervention(_node(node), "add", add, positions=positions)
    return Intervention(_node(node), "scale", scale, positions=positions)


def set_value(node: str | Node, value: Value, *, positions: Positions = None) -> Intervention:
    """Give a node a value of one's own: a number (in every channel), or a vector of the node's width.

    Example:
        >>> set_value("2.mlp.neuron:7", 0.5, positions=slice(5, None))
        set('2.mlp.neuron:7', 0.5, positions=slice(5, None, None))
    """
    return Intervention(_node(node), "set", value, positions=positions)


def _node(given: str | Node) -> Node:
    return Node.parse(given) if isinstance(given, str) else given
