"""Edges from values to what an attention's output map reads, in closed form: the pattern held.

    dy_t[q]/da_s[p] = Σ_h A_h[q, p] K_h[t, s]      K_h = V_o,h · U_v,g(h)

    attr              Σ_h K_h ∘ [ (Σ_q c_t[q] A_h[q, p])ᵀ (a_s c_s)[p] ]          q is summed before anything is pulled
    mean_squared_attr Σ_hh' K_h K_h' ∘ [ (Σ_q c_t² A_h A_h'[q, p])ᵀ (a_s c_s)²[p] ]   exact per (q, p)

Cost a batch of P tokens in rows of L: H (P L T + P T S) a metric, and H(H + 1)/2 such for the square.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.sites import Reading, Writing


@dataclass(frozen=True, eq=False)
class ValueKernel:
    """Edges from one attention's values to its output components.

    Args:
        reading: the components of the output map.
        writings: of the value map.
        heads: of the pattern.
        summed_squares: square sums over target positions, as spd's pull request 413 does; for comparison only.
    """

    reading: Reading
    writings: tuple[Writing, ...]
    heads: int
    summed_squares: bool = False

    @cached_property
    def V(self) -> Float[Tensor, "head target d_head"]:
        assert self.reading.V is not None
        return self.reading.V.unflatten(-1, (self.heads, -1)).transpose(0, 1)

    def _of(self, written: Float[Tensor, "rows channel"], head: int) -> Float[Tensor, "target rows"]:
        """What targets read of a head for what is written to its group's values."""
        groups = written.unflatten(-1, (-1, self.V.shape[-1]))
        return self.V[head] @ groups[:, head * groups.shape[1] // self.heads].T

    def count(
        self,
        pattern: Float[Tensor, "example head query key"],
        heard: Heard,
        told: Mapping[str, Told],
        window: Window,
        metrics: tuple[str, ...],
    ) -> None:
        """Add one batch."""
        shape = pattern.shape[0], pattern.shape[2]
        for metric in metrics:
            weight = heard.weights[metric].unflatten(0, shape)
            squared = metric == "mean_squared_attr"
            for writing in self.writings:
                value = told[writing.site].value
                if squared and not self.summed_squares:
                    block = self._square(pattern, weight, writing, value)
                else:
                    block = self._linear(pattern, weight, writing, value, squared)
                window.add((self.reading.site, writing.site), metric, block)

    def _linear(self, pattern: Tensor, weight: Tensor, writing: Writing, value: Tensor, squared: bool) -> Tensor:
        """Sums over q, head by head; their squares need all heads at each position."""
        mixed = [(pattern[:, h].transpose(-1, -2) @ weight).flatten(0, 1) for h in range(self.heads)]  # token, target
        if writing.U is None:
            summed = torch.stack([one * self._of(value, h).T for h, one in enumerate(mixed)]).sum(0)
            return (summed.square() if squared else summed).sum(0)[:, None]
        maps = [self._of(writing.U, h) for h in range(self.heads)]
        if not squared:
            return torch.stack([K * (one.T @ value) for K, one in zip(maps, mixed, strict=True)]).sum(0)
        total = torch.zeros_like(maps[0])
        for tokens in torch.arange(len(value), device=value.device).split(32):
            reached = torch.einsum("hpt,hts->pts", torch.stack([one[tokens] for one in mixed]), torch.stack(maps))
            total += (reached * value[tokens][:, None]).square().sum(0)
        return total

    def _square(self, pattern: Tensor, weight: Tensor, writing: Writing, value: Tensor) -> Tensor:
        weight, squares, total = weight.square(), value.square(), torch.zeros((), device=value.device)
        maps = [self._of(value if writing.U is None else writing.U, h) for h in range(self.heads)]
        for one in range(self.heads):
            for other in range(one + 1):
                both = pattern[:, one] * pattern[:, other]
                mixed = (both.transpose(-1, -2) @ weight).flatten(0, 1)
                if writing.U is None:
                    part = (mixed * (maps[one] * maps[other]).T).sum(0)[:, None]
                else:
                    part = maps[one] * maps[other] * (mixed.T @ squares)
                total = total + (part if one == other else 2 * part)
        return total
