"""Edges from queries to what an attention's output map reads, in closed form, through the softmax.

    dy_t[q]/dq_h[q] = M_h[q]ᵀ V_o,h,t        M_h[q] = scale (Σ_p A v kᵀ − v̄ k̄ᵀ)

M is the covariance of values and keys under the pattern A_h[q, ·]: one e × e matrix a query and head, whatever the
targets; turned back through R, it meets U at the same position. A local derivative: it belongs to no sum. Cost a batch
of P tokens in rows of L: P L H e² and that of `local.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.local import BUDGET, count_local
from whence.engine.dataset.passing import Attended
from whence.engine.dataset.pointwise import add_vector
from whence.engine.dataset.rotations import Compared
from whence.engine.dataset.sites import Reading, Writing
from whence.model.attention import expand_groups


@dataclass(frozen=True, eq=False)
class QueryKernel:
    """Edges from one attention's queries to its output components.

    Args:
        reading: the components of the output map.
        writings: source sites of the query map.
        how: how it compares.
    """

    reading: Reading
    writings: tuple[Writing, ...]
    how: Compared

    def count(
        self, one: Attended, heard: Heard, told: Mapping[str, Told], window: Window, metrics: tuple[str, ...]
    ) -> None:
        """Add one batch."""
        rows, heads, length, width = *one.pattern.shape[:3], one.query.shape[-1]
        V = by_head_of(self.reading, heads)
        for some in torch.arange(rows, device=V.device).split(max(8 * BUDGET // (length * V[0].numel() * width), 1)):
            back = self._covariances(one, some)
            weights = {m: heard.weights[m].unflatten(0, (rows, length))[some].flatten(0, 1) for m in metrics}
            for writing in self.writings:
                value = told[writing.site].value.unflatten(0, (rows, length))[some].flatten(0, 1)
                self._edges(writing, value, back, V, weights, window)

    def _edges(
        self, writing: Writing, value: Tensor, back: Tensor, V: Tensor, weights: Mapping[str, Tensor], window: Window
    ) -> None:
        pair, (_, heads, _, width) = (self.reading.site, writing.site), back.shape
        if writing.U is None:
            reached = torch.einsum("phij,phj->phi", back, by_head(value, heads, width))
            add_vector(torch.einsum("phi,thi->pt", reached, V), weights, window, pair)
            return

        def covectors(at: Tensor, targets: Tensor) -> Tensor:
            rows = V[targets].transpose(1, 2)  # token, head, target, value channel
            return (rows @ back[at]).transpose(1, 2).flatten(2)

        count_local(covectors, by_head(writing.U, heads, width).flatten(1), value, weights, window, pair)

    def _covariances(self, one: Attended, rows: Tensor) -> Float[Tensor, "token head d_value d_head"]:
        """M of some rows, turned back to what the query map puts out."""
        pattern = one.pattern[rows]
        heads = pattern.shape[1]
        v, k = expand_groups(one.value[rows], heads), expand_groups(one.key[rows], heads)
        outer = (v[..., :, None] * k[..., None, :]).flatten(-2)
        mean = (pattern @ outer).unflatten(-1, (v.shape[-1], k.shape[-1]))
        covariance = self.how.scale * (mean - (pattern @ v)[..., :, None] * (pattern @ k)[..., None, :])
        turned = covariance @ self.how.query[: pattern.shape[2]].to(covariance)
        return turned.transpose(1, 2).flatten(0, 1)


def by_head(written: Float[Tensor, "n channel"], heads: int, width: int) -> Float[Tensor, "n head d_head"]:
    """What is written to each head's query or key; heads share a group's."""
    groups = written.unflatten(-1, (-1, width))
    return groups.repeat_interleave(heads // groups.shape[1], 1)


def by_head_of(reading: Reading, heads: int) -> Float[Tensor, "target head d_value"]:
    """What the components of an output map read of each head."""
    assert reading.V is not None
    return reading.V.unflatten(-1, (heads, -1))
