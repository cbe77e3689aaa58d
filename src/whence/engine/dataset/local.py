"""Edges within one position whose derivative changes from token to token: pairs of active units, position by position.

    A[p, t, s] = c_t D_t[p] · U_s  (a_s c_s)[p]

D_t[p] is the target's covector where the source writes. Only targets and sources that count at a position are paired
there; positions with like numbers of them go together, so that little is padded. Cost: 2 m a pair of active units, with
m the width of the place, and that of D.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.engine.dataset.blocks import Pair, Window

BUDGET = 1 << 22  # numbers in one temporary tensor

# (positions, targets at each) -> their covectors
Covectors = Callable[[Int[Tensor, " n"], Int[Tensor, "n k"]], Float[Tensor, "n k m"]]


@dataclass(frozen=True, eq=False)
class Padded:
    """Which units count at each position, padded."""

    index: Int[Tensor, "n k"]
    real: Bool[Tensor, "n k"]
    every: bool  # every unit at every position, in order


class Counting:
    """Which units count at each position, to be asked for some positions."""

    def __init__(self, mask: Bool[Tensor, "token unit"]) -> None:
        self.count = mask.sum(1)
        self.start = self.count.cumsum(0) - self.count
        self.unit = mask.nonzero()[:, 1]
        self.width = mask.shape[1]

    def at(self, positions: Int[Tensor, " n"]) -> Padded:
        """The units that count at these positions."""
        count = self.count[positions]
        most = int(count.max()) if len(count) else 0
        place = torch.arange(most, device=positions.device)
        real = place < count[:, None]
        if most == self.width and bool(real.all()):
            return Padded(place.expand(len(positions), -1), real, True)
        index = (self.start[positions, None] + place).clamp_max(max(len(self.unit) - 1, 0))
        return Padded(torch.where(real, self.unit[index], 0), real, False)


def count_local(
    covectors: Covectors,
    U: Float[Tensor, "source m"],
    X: Float[Tensor, "token source"],
    weights: Mapping[str, Float[Tensor, "token target"]],
    window: Window,
    pair: Pair,
) -> None:
    """Add one batch of a pair of sites to a window.

    Args:
        covectors: D of some targets at some positions.
        U: what each source writes.
        X: a c of each source.
        weights: by metric; where one is not zero another is not either.
        window: the sums.
        pair: whose.
    """
    first = next(iter(weights.values()))
    shape = (first.shape[1], len(U))
    blocks = {metric: window.into(pair, metric, shape, first) for metric in weights}
    targets, sources = Counting(torch.stack([w != 0 for w in weights.values()]).any(0)), Counting(X != 0)
    for positions in _together(targets.count, sources.count, U.shape[1]):
        t, s = targets.at(positions), sources.at(positions)
        D = covectors(positions, t.index)
        if s.every:
            pairs = (D.flatten(0, 1) @ U.T).unflatten(0, D.shape[:2]) * X[positions][:, None]
        else:
            pairs = D @ U[s.index].transpose(1, 2) * (X[positions].gather(1, s.index) * s.real)[:, None]
        for metric, weight in weights.items():
            own = pairs * (weight[positions].gather(1, t.index) * t.real)[..., None]
            _scatter(blocks[metric], own.square() if metric == "mean_squared_attr" else own, t, s)


def _together(targets: Tensor, sources: Tensor, width: int) -> Iterator[Int[Tensor, " n"]]:
    """Positions with like numbers of active units, as many as fit."""
    active = ((targets > 0) & (sources > 0)).nonzero()[:, 0]
    order = active[(targets[active] * sources[active]).argsort()]
    start = 0
    while start < len(order):
        size = max((len(order) - start + 7) // 8, 1)
        while size > 1:
            here = order[start : start + size]
            kt, ks = int(targets[here].max()), int(sources[here].max())
            if size * max(kt * ks, (kt + ks) * width) <= BUDGET:
                break
            size = (size + 1) // 2
        yield order[start : start + size]
        start += size


def _scatter(block: Float[Tensor, "target source"], A: Float[Tensor, "n t s"], t: Padded, s: Padded) -> None:
    if t.every and s.every:
        block += A.sum(0)
    elif s.every:
        block.index_add_(0, t.index.flatten(), A.flatten(0, 1))
    else:
        at = t.index[..., None] * block.shape[1] + s.index[:, None]
        block.view(-1).index_add_(0, at.flatten(), A.flatten())
