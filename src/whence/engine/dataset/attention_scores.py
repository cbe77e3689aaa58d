"""Edges from queries and keys to what an attention's output map reads, in closed form, through the softmax.

With G_h[t, p] = V_o,h · v[p] what a unit of attention adds to y_t, and S the scores, dS_h[t, q, p] = A_h (G_h[t, p] − Ḡ_h[t, q]),
Ḡ the mean of G under A:

    q, same position    dq_h[t, q] = M_h[q]ᵀ V_o,h,t      M_h[q] = scale (Σ_p A v kᵀ − v̄ k̄ᵀ), the covariance of values and
                        keys under the pattern: one e × e matrix a query, whatever the targets
    k, at position p    A[q, p, t, s] = scale Σ_h dS_h[t, q, p] (q_h[q] · R_p U_k,s) (a c)_s[p]

Edges from queries and keys are local derivatives and belong to no sum. Cost a batch of P tokens in rows of L: queries,
P e² (L + 1) H and that of `local.py`; keys, H operations for each (active target at q, active source at p ≤ q).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.local import BUDGET, count_local
from whence.engine.dataset.passing import Attended
from whence.engine.dataset.pointwise import add_vector
from whence.engine.dataset.rotations import Compared
from whence.engine.dataset.sites import Reading, Writing
from whence.model.attention import expand_groups


@dataclass(frozen=True, eq=False)
class ScoreKernel:
    """Edges from one attention's queries and keys to its output components.

    Args:
        reading: the components of the output map.
        queries: source sites of the query map.
        keys: source sites of the key map.
        how: how it compares them.
        summed_squares: square sums over target positions, as spd's pull request 413 does; for comparison only.
    """

    reading: Reading
    queries: tuple[Writing, ...]
    keys: tuple[Writing, ...]
    how: Compared
    summed_squares: bool = False

    def count(
        self, one: Attended, heard: Heard, told: Mapping[str, Told], window: Window, metrics: tuple[str, ...]
    ) -> None:
        """Add one batch."""
        weights = {metric: heard.weights[metric] for metric in metrics}
        for writing in self.queries:
            self._query(one, writing, told[writing.site], weights, window)
        for writing in self.keys:
            self._key(one, writing, told[writing.site], weights, window)

    # ------------------------------------------------------------ queries
    def _query(
        self, one: Attended, writing: Writing, told: Told, weights: Mapping[str, Tensor], window: Window
    ) -> None:
        heads, pair = one.pattern.shape[1], (self.reading.site, writing.site)
        back = self._covariances(one)  # token, head, value channel, channel of the query map
        V = self._V(heads)
        if writing.kind == "vector":
            reached = torch.einsum("phij,phj->phi", back, _by_head(told.value, heads, one.query.shape[-1]))
            add_vector(torch.einsum("phi,thi->pt", reached, V), weights, window, pair)
            return
        assert writing.U is not None
        U = _by_head(writing.U, heads, one.query.shape[-1]).flatten(1)

        def covectors(at: Tensor, targets: Tensor) -> Tensor:
            rows = V[targets].transpose(1, 2)  # token, head, target, value channel
            return (rows @ back[at]).transpose(1, 2).flatten(2)

        count_local(covectors, U, told.value, weights, window, pair)

    def _covariances(self, one: Attended) -> Float[Tensor, "token head d_value d_head"]:
        """M, turned back to what the query map puts out."""
        heads, pattern = one.pattern.shape[1], one.pattern
        v, k = expand_groups(one.value, heads), expand_groups(one.key, heads)
        outer = (v[..., :, None] * k[..., None, :]).flatten(-2)
        mean = (pattern @ outer).unflatten(-1, (v.shape[-1], k.shape[-1]))
        M = self.how.scale * (mean - (pattern @ v)[..., :, None] * (pattern @ k)[..., None, :])
        turned = M @ self.how.query[: pattern.shape[2]].to(M)
        return turned.transpose(1, 2).flatten(0, 1)

    # ------------------------------------------------------------ keys
    def _key(self, one: Attended, writing: Writing, told: Told, weights: Mapping[str, Tensor], window: Window) -> None:
        first = next(iter(weights.values()))
        shape = (first.shape[1], len(writing.ids))
        blocks = {m: window.into((self.reading.site, writing.site), m, shape, first) for m in weights}
        length = one.pattern.shape[-1]
        active = torch.stack([weight != 0 for weight in weights.values()]).any(0).unflatten(0, (-1, length))
        by_row = {metric: weight.unflatten(0, (-1, length)) for metric, weight in weights.items()}
        G = torch.einsum(
            "thi,bhpi->bthp", self._V(one.pattern.shape[1]), expand_groups(one.value, one.pattern.shape[1])
        )
        for row in range(len(one.pattern)):
            sources = self._sources(one, writing, told.value.unflatten(0, (-1, length))[row], row)
            own = {metric: weight[row] for metric, weight in by_row.items()}
            if self.summed_squares:
                self._summed(one, row, G[row], sources, own, blocks)
            else:
                self._pairs(one, row, G[row], sources, active[row], own, blocks)

    def _sources(self, one: Attended, writing: Writing, value: Tensor, row: int) -> "_Sources":
        """The sources that count in one row of the batch, by position: what each adds to the key it writes."""
        heads, e = one.pattern.shape[1], one.query.shape[-1]
        R = self.how.key[: one.pattern.shape[-1]].to(value)
        if writing.kind == "vector":
            position = torch.arange(len(value), device=value.device)
            written, unit = _by_head(value, heads, e), torch.zeros_like(position)
        else:
            assert writing.U is not None
            position, unit = value.nonzero(as_tuple=True)
            written = _by_head(writing.U, heads, e)[unit] * value[position, unit][:, None, None]
        turned = torch.einsum("nij,nhj->nhi", R[position], written) * self.how.scale
        return _Sources(position, unit, turned)

    def _pairs(
        self,
        one: Attended,
        row: int,
        G: Float[Tensor, "target head key"],
        sources: "_Sources",
        active: Tensor,
        weights: Mapping[str, Tensor],
        blocks: Mapping[str, Tensor],
    ) -> None:
        """Every (target at q, source at p): exact for every metric."""
        for q, targets, found in self._rows(one, row, sources, active):
            A = one.pattern[row, :, q]
            mean = torch.einsum("thp,hp->th", G[targets], A)
            dS = A * (G[targets] - mean[..., None])  # target, head, key
            reach = torch.einsum("nhi,hi->nh", sources.turned[found], one.query[row, :, q])
            pairs = (dS[..., sources.position[found]] * reach.T).sum(1)  # target, source
            at = (targets[:, None] * next(iter(blocks.values())).shape[1] + sources.unit[found]).flatten()
            for metric, weight in weights.items():
                own = pairs * weight[q, targets][:, None]
                own = own.square() if metric == "mean_squared_attr" else own
                blocks[metric].view(-1).index_add_(0, at, own.flatten())

    def _rows(
        self, one: Attended, row: int, sources: "_Sources", active: Tensor
    ) -> Iterator[tuple[int, Int[Tensor, " k"], slice]]:
        """Queries, some targets that count there, and the sources that they see."""
        ends = torch.searchsorted(sources.position, torch.arange(len(active), device=active.device), right=True)
        for q, end in enumerate(ends.tolist()):
            targets = active[q].nonzero()[:, 0]
            if not end or not len(targets):
                continue
            for some in targets.split(max(BUDGET // (end * one.pattern.shape[1]), 1)):
                yield q, some, slice(0, end)

    def _summed(
        self,
        one: Attended,
        row: int,
        G: Float[Tensor, "target head key"],
        sources: "_Sources",
        weights: Mapping[str, Tensor],
        blocks: Mapping[str, Tensor],
    ) -> None:
        """Targets summed over their positions first, and squared after that."""
        A, query = one.pattern[row], one.query[row]
        mean = torch.einsum("thp,hqp->qth", G, A)
        for metric, weight in weights.items():
            for targets in torch.arange(len(G), device=G.device).split(max(BUDGET // max(len(sources.unit), 1), 1)):
                w = weight[:, targets]
                plain = torch.einsum("qt,hqp,hqi->tphi", w, A, query) * G[targets].transpose(1, 2)[..., None]
                mixed = torch.einsum("qt,qth,hqp,hqi->tphi", w, mean[:, targets], A, query)
                own = torch.einsum("tnhi,nhi->tn", (plain - mixed)[:, sources.position], sources.turned)
                own = own.square() if metric == "mean_squared_attr" else own
                blocks[metric].index_add_(
                    0, targets, own.new_zeros(len(targets), blocks[metric].shape[1]).index_add_(1, sources.unit, own)
                )

    def _V(self, heads: int) -> Float[Tensor, "target head d_value"]:
        assert self.reading.V is not None
        return self.reading.V.unflatten(-1, (heads, -1))


@dataclass(frozen=True, eq=False)
class _Sources:
    """Sources of one row, ascending in position."""

    position: Int[Tensor, " n"]
    unit: Int[Tensor, " n"]
    turned: Float[Tensor, "n head d_head"]


def _by_head(written: Float[Tensor, "n channel"], heads: int, width: int) -> Float[Tensor, "n head d_head"]:
    """What is written to each head's query or key; heads share a group's."""
    groups = written.unflatten(-1, (-1, width))
    return groups.repeat_interleave(heads // groups.shape[1], 1)
