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
        groups: of the values.
        summed_squares: square sums over target positions, as spd's pull request 413 does; for comparison only.
    """

    reading: Reading
    writings: tuple[Writing, ...]
    heads: int
    groups: int
    summed_squares: bool = False

    @cached_property
    def V(self) -> Float[Tensor, "head target d_head"]:
        assert self.reading.V is not None
        return self.reading.V.unflatten(-1, (self.heads, -1)).transpose(0, 1)

    @cached_property
    def maps(self) -> dict[str, Float[Tensor, "head target source"]]:
        """K of each source site that has units."""
        return {w.site: self._projected(w.U) for w in self.writings if w.U is not None}

    def _projected(self, written: Float[Tensor, "*rows channel"]) -> Float[Tensor, "head target *rows"]:
        by_group = written.unflatten(-1, (self.groups, -1)).movedim(-2, 0)
        by_head = by_group.repeat_interleave(self.heads // self.groups, 0)
        flat = by_head.flatten(1, -2)
        return (self.V @ flat.transpose(-1, -2)).unflatten(-1, by_head.shape[1:-1])

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
        mixed = (pattern.transpose(-1, -2) @ weight[:, None]).transpose(0, 1).flatten(1, 2)  # head, token, target
        if writing.kind == "vector":
            reached = mixed * self._projected(value).transpose(-1, -2)
            summed = reached.sum(0)
            return (summed.square() if squared else summed).sum(0)[:, None]
        if not squared:
            return (self.maps[writing.site] * (mixed.transpose(-1, -2) @ value)).sum(0)
        total = value.new_zeros(self.maps[writing.site].shape[1:])
        for tokens in torch.arange(len(value), device=value.device).split(32):
            reached = torch.einsum("hpt,hts->pts", mixed[:, tokens], self.maps[writing.site])
            total += (reached * value[tokens][:, None]).square().sum(0)
        return total

    def _square(self, pattern: Tensor, weight: Tensor, writing: Writing, value: Tensor) -> Tensor:
        weight, total = weight.square(), torch.zeros((), device=value.device)
        reached = self._projected(value).transpose(-1, -2) if writing.kind == "vector" else None
        for one in range(self.heads):
            for other in range(one + 1):
                both = pattern[:, one] * pattern[:, other]
                mixed = (both.transpose(-1, -2) @ weight).flatten(0, 1)
                if reached is not None:
                    part = (mixed * reached[one] * reached[other]).sum(0)[:, None]
                else:
                    maps = self.maps[writing.site]
                    part = maps[one] * maps[other] * (mixed.T @ value.square())
                total = total + (part if one == other else 2 * part)
        return total
