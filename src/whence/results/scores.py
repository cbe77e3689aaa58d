"""Scores: parts of a model, what each adds to a number, and the ledger that proves it.

    remainder = target − Σ_node values[node]        computed in float64

`target` is the number explained, the model's own; the values are its parts, biases and constants included. What no part
carries stays visible as the remainder. Everything here is plain data on the CPU and opens without the model. Cost: one
pass over `values` for each sum. It knows nothing of how the parts were computed.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import store
from whence.results.checks import complaint
from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.runs import Run

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import rich.table

__all__ = ["REST", "Keys", "Run", "Scores"]
REST = Node("rest")
_LISTS = ("axes", "target_labels", "tokens", "positions")


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """What each part of a model adds to a number; the rows sum to it, up to `remainder`.

    Args:
        keys: The part each row is.
        values: What it adds, in the unit of `target` (logits, as a rule); float32 or float64, on the CPU.
        target: The number explained.
        axes: Names of the axes of `values`: "node", "example", then "position" and "target" where there are several.
        target_labels: For each example, what each target is, such as " Austin" or "' Mary' − ' John'".
        tokens: For each example, its tokens as text; () where there is no single answer.
        positions: For each example, the absolute positions asked for; () where there is no single answer.
        provenance: Where the numbers come from (method, model, revision, dtype, versions ...), JSON-able.

    Raises:
        ValueError: Shapes, lengths or axes that do not belong together.

    Example:
        >>> keys, values = Keys.of([Node("embed"), Node("mlp", 0)]), torch.tensor([[1.0], [2.0]])
        >>> Scores(keys, values, torch.tensor([3.5]), ("node", "example"), ((" Austin",),), (("The",),), ((0,),))
        Scores(2 nodes × 1 example: ' Austin' = +3.500, remainder +5.0e-01, 1.7e-01 of Σ|parts|)
    """

    keys: Keys
    values: Float[Tensor, "node example *rest"]
    target: Float[Tensor, "example *rest"]
    axes: tuple[str, ...]
    target_labels: tuple[tuple[str, ...], ...]
    tokens: tuple[tuple[str, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = complaint(self.values, self.target, len(self.keys), self.axes)
        if wrong:
            raise ValueError(wrong)
        sizes = dict(zip(self.axes, self.values.shape, strict=True))
        targets, positions = sizes.get("target", 1), sizes.get("position", 1)
        ...

    @property
    def remainder(self) -> Float64[Tensor, "example *rest"]:
        """What no part carries: target − Σ parts."""
        return self.target.double() - self.values.sum(0, dtype=torch.float64)

    @property
    def magnitude(self) -> Float64[Tensor, "example *rest"]:
        """Σ|parts|, the scale a remainder is judged by."""
        return self.values.abs().sum(0, dtype=torch.float64)

    def mean(self) -> "Scores":
        """The mean over examples, as scores of one example. What the examples do not share is left out.

        Example:
            >>> scores.mean().values.shape[1]  # doctest: +SKIP
            1
        """
        count = self.values.shape[1]
        return replace(
            self,
            values=self.values.mean(1, keepdim=True, dtype=torch.float64).to(self.values.dtype),
            target=self.target.mean(0, keepdim=True, dtype=torch.float64).to(self.target.dtype),
            target_labels=(tuple(_shared(labels) for labels in zip(*self.target_labels, strict=True)),),
            tokens=(_same(self.tokens),),
            positions=(_same(self.positions),),
            provenance=self.provenance if count == 1 else self.provenance | {"mean_over_examples": count},
        )

    def top(self, k: int = 10, by: Literal["abs", "signed"] = "abs") -> "Scores":
        """The k strongest rows, strongest first, and one closing row `rest` that carries the others: it still adds up.

        Args:
            k: How many rows to keep.
            by: Strength of a row's mean over all other axes: its size, or its signed value (most positive first).

        Raises:
            ValueError: Negative k.

        Example:
            >>> [str(key) for key in scores.top(2).keys]  # doctest: +SKIP
            ['5.attn.head:6', '3.mlp', 'rest']
        """
        if k < 0:
            raise ValueError(f"top({k}): the number of rows to keep is 0 or more.")
        strength = self.values.flatten(1).mean(1, dtype=torch.float64)
        strength = strength.abs() if by == "abs" else strength
        closed = self.keys.index(REST) if REST in self.keys else None
        order = [row for row in strength.argsort(descending=True, stable=True).tolist() if row != closed]
        kept, others = order[:k], order[k:] + ([] if closed is None else [closed])
        nodes, values = [self.keys[row] for row in kept], self.values[kept]
        if others:
            rest = self.values[others].sum(0, keepdim=True, dtype=torch.float64).to(values.dtype)
            nodes, values = [*nodes, REST], torch.cat([values, rest])
        return replace(self, keys=Keys.of(nodes), values=values)
