"""How well measured effects bear out predicted ones: pure functions of two matrices.

    error of a node    max_t |measured - predicted| / max(max_t |predicted|, 0.001 * the largest prediction of all)
    Spearman, sign     over all (row, node) pairs with an edge; equal values share their mean rank

An effect that is not a number is never agreement: it makes its node's error NaN, which no bound lets through.
Cost: one sort of the pairs. Knows nothing of models and graphs.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-3  # a node whose every weight is this far below the strongest is measured in rounding errors


@dataclass(frozen=True)
class Agreement:
    """One comparison: the errors of all nodes, and agreement over all edges.

    Attributes:
        errors: by node, in the order they were intervened on.
        spearman: rank correlation of predicted and measured effects; NaN with fewer than two different values.
        sign: share of edges whose measured effect has the predicted sign.
        edges: how many there are.
    """

    errors: tuple[float, ...]
    spearman: float
    sign: float
    edges: int

    @property
    def max_error(self) -> float:
        """The largest error of any node, NaN if one is; 0 without nodes."""
        return float(torch.tensor(self.errors, dtype=torch.float64).amax()) if self.errors else 0.0


def agreement(
    predicted: Float[Tensor, "row node"],
    measured: Float[Tensor, "row node"],
    largest: float,
    *,
    edges_only: bool = False,
) -> tuple[Agreement, list[int]]:
    """The comparison, and for each node the row where it is worst.

    Args:
        predicted: effects by row and node; 0 where there is no edge.
        measured: the same, measured.
        largest: the largest |weight| of any node that could be removed.
        edges_only: count errors only where there is an edge, since others may have been cut.

    Example:
        >>> agreement(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.5]]), 2.0)[0].errors
        (0.0, 0.25)
    """
    predicted, measured = predicted.double(), measured.double()
    scale = predicted.abs().amax(0).clamp_min(max(FLOOR * largest, torch.finfo(torch.float64).tiny))
    edges = predicted != 0
    errors = (measured - predicted).abs() / scale
    errors = errors.masked_fill(~edges, 0) if edges_only else errors
    one, other = predicted[edges], measured[edges]
    same = float((one.sign() == other.sign()).double().mean()) if len(one) else 1.0
    found = Agreement(tuple(errors.amax(0).tolist()), spearman(one, other), same, int(edges.sum()))
    return found, errors.argmax(0).tolist()


def spearman(one: Float[Tensor, " pair"], other: Float[Tensor, " pair"]) -> float:
    """Rank correlation; NaN where one side has no two different values, or holds one that is no number.

    Example:
        >>> round(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 5.0, 7.0])), 6)
        1.0
    """
    if bool(one.isnan().any()) or bool(other.isnan().any()):
        return float("nan")
    a, b = (_ranks(side) for side in (one, other))
    spread = a.norm() * b.norm()
    return float(a @ b / spread) if float(spread) > 0 else float("nan")


def _ranks(values: Tensor) -> Tensor:
    """Ranks less their mean; equal values share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks = (last - (count - 1) / 2)[place]
    return ranks - ranks.mean() if len(ranks) else ranks
