"""Edges through the stream in closed form: what a sublayer, the embedding or a bias wrote, read through one norm.

With x the stream before the norm, i = 1/sigma, R_t = entered · C(gain ∘ V_t) and U_s as it arrives in the stream,

    dy_t/da_s = i K_ts - live β_t ρ_s        K = R Uᵀ    β = i³/d (R · c(x))    ρ_s = c(x) · U_s

at the same position. Norms held, a block of units is K ∘ Σ_p (c_t i) (a_s c_s): the sum over positions needs no K,
which is multiplied once a window; the mean square is K² ∘ Σ (c_t i)² (a_s c_s)². Live norms add the terms in β, of
which the square makes three. Vectors (embeddings, deltas, heads) are contracted over the stream at each position first.

Cost a batch of P tokens: 2 P T S a metric for units, 2 P d T for each vector. All readers of a norm share one product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.passing import Passed
from whence.engine.dataset.sites import Reading, StreamRead, StreamWrite, Writing
from whence.model.norms import NormMap, probe_norm


@dataclass(frozen=True, eq=False)
class Arrival:
    """How a vector written somewhere arrives in the stream: times a constant, through a post-norm held at its scale."""

    factor: float
    norm: nn.Module | None
    map: NormMap | None

    def of(self, vector: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Up to the post-norm's 1 / sigma."""
        return self.factor * (vector if self.map is None else self.map.gain * self.map.centre(vector))

    def scale(self, passed: Passed) -> Float[Tensor, "token 1"] | float:
        """1 / sigma of the post-norm at each token."""
        if self.norm is None or self.map is None:
            return 1.0
        x, y = passed.tape.around[self.norm]
        return self.map.inverse_scale(x, y).flatten()[:, None]


def arrival(where: StreamWrite, width: int) -> Arrival:
    """How what is written there arrives."""
    if where.sublayer is None:
        return Arrival(where.factor, None, None)
    factor = where.sublayer.factor * (where.sublayer.written if where.depth == "write" else 1.0)
    norm = None if where.depth == "normed" else where.sublayer.post_norm
    return Arrival(factor, norm, None if norm is None else probe_norm(norm, width))


@dataclass(eq=False)
class StreamKernel:
    """All closed-form edges into the readers of one norm.

    Args:
        read: what they read through.
        readings: the target sites.
        units: source sites with fixed directions.
        vectors: the others.
        live: let the norm's scale move.
        by_coordinate: square vectors by coordinate, as spd's pull request 413 does; for comparison only.
    """

    read: StreamRead
    readings: tuple[Reading, ...]
    units: tuple[Writing, ...]
    vectors: tuple[Writing, ...]
    live: bool
    by_coordinate: bool = False
    sums: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])

    def __post_init__(self) -> None:
        V = torch.cat([self._of(reading) for reading in self.readings])
        self.map = None if self.read.norm is None else probe_norm(self.read.norm, V.shape[1]).to(V)
        self.R = self.read.entered * (V if self.map is None else self.map.pull(V))
        where = {writing: writing.where for writing in (*self.units, *self.vectors)}
        self.arrivals = {w: arrival(at, V.shape[1]) for w, at in where.items() if isinstance(at, StreamWrite)}
        arrived = [self.arrivals[w].of(w.U) for w in self.units if w.U is not None]
        self.U = torch.cat(arrived) if arrived else V.new_zeros(0, V.shape[1])
        self.K = self.R @ self.U.T
        self.epsilon = float(getattr(self.read.norm, "variance_epsilon", getattr(self.read.norm, "eps", 0.0)) or 0.0)

    @staticmethod
    def _of(reading: Reading) -> Tensor:
        assert reading.V is not None
        return reading.V

    # ------------------------------------------------------------ one batch
    def count(
        self,
        passed: Passed,
        heard: Mapping[str, Heard],
        told: Mapping[str, Told],
        window: Window,
        metrics: Sequence[str],
    ) -> None:
        """Add one batch."""
        i, x, beta = self._norm(passed)
        weights = {m: torch.cat([heard[r.site].weights[m] for r in self.readings], 1) for m in metrics}
        if self.units:
            parts = [told[w.site].value * self.arrivals[w].scale(passed) for w in self.units]
            X = torch.cat(parts, 1)
            rho = x @ self.U.T if beta is not None else None
            for metric, weight in weights.items():
                terms = _terms(metric, weight, i, X, beta, rho)
                own = self.sums.get(metric)
                self.sums[metric] = terms if own is None else [a + b for a, b in zip(own, terms, strict=True)]
        for writing in self.vectors:
            self._vector(writing, passed, told[writing.site], (i, x, beta), weights, window)

    def _norm(self, passed: Passed) -> tuple[Tensor, Tensor, Tensor | None]:
        """1 / sigma, the centred stream, and β where the norm is live."""
        if self.read.norm is None or self.map is None:
            one = torch.ones(passed.batch.ids.numel(), 1, dtype=self.R.dtype, device=self.R.device)
            return one, one, None
        x, y = passed.tape.around[self.read.norm]
        i = self.map.inverse_scale(x, y).flatten()[:, None]
        x = self.map.centre(x).flatten(0, 1)
        if not self.live:
            return i, x, None
        # The probed gain carries (1 + eps)^-1/2 and i its inverse; σ² itself is without it.
        return i, x, (x @ self.R.T) * i.pow(3) / (x.shape[1] * (1 + self.epsilon))

    def _vector(
        self,
        writing: Writing,
        passed: Passed,
        told: Told,
        norm: tuple[Tensor, Tensor, Tensor | None],
        weights: Mapping[str, Tensor],
        window: Window,
    ) -> None:
        i, x, beta = norm
        arrives = self.arrivals[writing]
        scale = arrives.scale(passed)
        for line, vector in enumerate(told.value.unbind(1) if writing.kind == "parts" else (told.value,)):
            arrived = arrives.of(vector) * scale
            derivative = i * (arrived @ self.R.T)
            if beta is not None:
                derivative = derivative - beta * (x * arrived).sum(-1, keepdim=True)
            for metric, weight in weights.items():
                if metric != "mean_squared_attr":
                    own = weight * derivative
                elif self.by_coordinate:
                    own = weight.square() * self._by_coordinate(arrived, norm)
                else:
                    own = (weight * derivative).square()
                self._emit(writing, line, told.bucket, metric, own, window)

    def _by_coordinate(self, v: Tensor, norm: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
        """Σ_d (g_d v_d)² with g = i R - β c(x)."""
        i, x, beta = norm
        total = i.square() * (v.square() @ self.R.square().T)
        if beta is not None:
            cross, own = (v.square() * x) @ self.R.T, (v * x).square().sum(-1, keepdim=True)
            total = total - 2 * i * beta * cross + beta.square() * own
        return total

    def _emit(self, writing: Writing, line: int, bucket: Tensor | None, metric: str, F: Tensor, window: Window) -> None:
        start = 0
        for reading in self.readings:
            count = len(reading.ids)
            part = F[:, start : start + count]
            start += count
            block = window.into((reading.site, writing.site), metric, (count, len(writing.ids)), part)
            if bucket is None:
                block[:, line] += part.sum(0)
            else:
                block.T.index_add_(0, bucket, part)

    # ------------------------------------------------------------ a window
    def finish(self, window: Window) -> None:
        """Hand on the window's blocks of units."""
        for metric, terms in self.sums.items():
            K = self.K
            total = (K.square() if metric == "mean_squared_attr" else K) * terms[0]
            if len(terms) == 3:
                total = total - 2 * K * terms[1] + terms[2]
            elif len(terms) == 2:
                total = total - terms[1]
            self._split(metric, total, window)
        self.sums = {}

    def _split(self, metric: str, total: Tensor, window: Window) -> None:
        rows = total.split([len(reading.ids) for reading in self.readings])
        for reading, row in zip(self.readings, rows, strict=True):
            blocks = row.split([len(writing.ids) for writing in self.units], 1)
            for writing, block in zip(self.units, blocks, strict=True):
                window.add((reading.site, writing.site), metric, block)


def _terms(
    metric: str, weight: Tensor, i: Tensor, X: Tensor, beta: Tensor | None, rho: Tensor | None
) -> list[Float[Tensor, "target source"]]:
    """Sums over positions that K, and for live norms nothing, is still to be multiplied with."""
    a = weight * i
    if metric != "mean_squared_attr":
        terms = [a.T @ X]
        return terms if beta is None or rho is None else [*terms, (weight * beta).T @ (X * rho)]
    squares = X.square()
    terms = [a.square().T @ squares]
    if beta is None or rho is None:
        return terms
    b = weight * beta
    return [*terms, (a * b).T @ (squares * rho), b.square().T @ (squares * rho.square())]
