"""Keep the k strongest units of a model and the sum of the others, one run of units at a time.

Strength is the mean size of a unit's scores over examples, positions and targets. Memory: k rows a run and one run at a
time, never all units. The others are not lost: their sum is one row, so the ledger still closes.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.runs import Run


@dataclass(eq=False)
class Strongest:
    """The k strongest units seen so far.

    Args:
        k: how many to keep.
    """

    k: int
    candidates: list[tuple[Run, Tensor]] = field(default_factory=list[tuple[Run, Tensor]])
    others: Tensor | None = None

    def take(self, run: Run, scores: Float[Tensor, "example asked target unit"]) -> None:
        """Look at one run of units."""
        assert run.units is not None
        strength = scores.abs().flatten(0, 2).mean(0)
        kept = strength.topk(min(self.k, len(strength))).indices.sort().values
        chosen = scores[..., kept]
        self._leave(scores.sum(-1) - chosen.sum(-1))
        self.candidates.append((replace(run, units=tuple(run.units[i] for i in kept.tolist())), chosen))

    def result(
        self,
    ) -> tuple[list[Run], Float[Tensor, "example asked target kept"], Float[Tensor, "example asked target"]]:
        """The runs of the k strongest overall, in the model's order; their scores; the sum of all others."""
        scores = torch.cat([chosen.to(self.candidates[0][1].device) for _, chosen in self.candidates], dim=-1)
        strength = scores.abs().flatten(0, 2).mean(0)
        kept = torch.zeros_like(strength, dtype=torch.bool)
        kept[strength.topk(min(self.k, len(strength))).indices] = True
        runs: list[Run] = []
        start = 0
        for run, chosen in self.candidates:
            assert run.units is not None
            here = kept[start : start + chosen.shape[-1]].tolist()
            units = tuple(unit for unit, keep in zip(run.units, here, strict=True) if keep)
            runs += [replace(run, units=units)] if units else []
            start += chosen.shape[-1]
        self._leave(scores[..., ~kept].sum(-1))
        assert self.others is not None
        return runs, scores[..., kept], self.others

    def _leave(self, scores: Tensor) -> None:
        self.others = scores if self.others is None else self.others.to(scores.device) + scores
