"""Sums of one window of batches, by pair of sites, and how batches are told to count.

    attr = Σ A    attr_abs = Σ sign(y) A    mean_squared_attr = Σ A²      A[q, p] = c_t[q] dy_t[q]/da_s[p] a_s[p] c_s[p]

Sums of a window are kept in the working precision and handed on at its end. Cost: memory of the blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

Pair = tuple[str, str]  # target site, source site


@dataclass(frozen=True, eq=False)
class Heard:
    """The targets of one site in one batch, tokens flattened.

    Args:
        y: what each reads.
        weights: metric -> by what each row of A is multiplied; the square's is squared with A.
    """

    y: Float[Tensor, "token target"]
    weights: Mapping[str, Float[Tensor, "token target"]]


@dataclass(frozen=True, eq=False)
class Told:
    """The sources of one site in one batch, tokens flattened.

    Args:
        value: a c of each unit; or the vector(s) that are written, times c.
        bucket: of vectors told apart by token: which line each token counts for.
    """

    value: Float[Tensor, "token *unit"]
    bucket: Tensor | None = None


def weights_of(metrics: tuple[str, ...], c: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What each metric multiplies A by."""
    found = {"attr": c, "attr_abs": c * y.sign(), "mean_squared_attr": c}
    return {metric: found[metric] for metric in metrics}


@dataclass(eq=False)
class Window:
    """The sums of a window: pair -> metric -> [target, source]."""

    sums: dict[Pair, dict[str, Tensor]] = field(default_factory=dict[Pair, dict[str, Tensor]])

    def add(self, pair: Pair, metric: str, value: Tensor) -> None:
        """Count a block."""
        own = self.sums.setdefault(pair, {})
        own[metric] = own[metric] + value if metric in own else value

    def into(self, pair: Pair, metric: str, shape: tuple[int, int], like: Tensor) -> Tensor:
        """The block itself, to be added to in place."""
        own = self.sums.setdefault(pair, {})
        if metric not in own:
            own[metric] = torch.zeros(shape, dtype=like.dtype, device=like.device)
        return own[metric]
