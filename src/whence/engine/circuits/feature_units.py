"""The units of a dictionary at its site: features, its skip's output if it has one, and the error.

    x = f W_dec + b_dec (+ r W_skipᵀ) + eps,    f = act(r W_encᵀ + b_enc)

See `units.py` for what each of them has. Cost: two products with the dictionary, chunk by chunk; for edges, rows of it.
Knows nothing of where the site is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.encoder import Encoder
from whence.components.lazy import Matrix, chunks, rows_of
from whence.components.one_layer import weighted
from whence.engine.circuits.units import Cotangents, Places, Said


@dataclass(frozen=True, eq=False)
class FeatureUnits:
    """Features of a dictionary, its skip's output if it has one, and the error."""

    encoder: Encoder
    decoder: Matrix
    bias: Float[Tensor, " d"]
    skip: Float[Tensor, "d r"] | None = None
    reads_itself: bool = True

    @property
    def n_features(self) -> int:
        return self.encoder.n_features

    @property
    def width(self) -> int:
        return len(self.bias)

    @property
    def count(self) -> int:
        return self.n_features + (1 if self.skip is None else 2)

    def name(self, unit: int) -> tuple[str, int | None]:
        if unit < self.n_features:
            return "feature", unit
        return ("error" if unit == self.count - 1 else "skip"), None

    def split(self, own: Tensor, read: Tensor) -> Said:
        features = self.encoder.encode(read)
        rest = own.to(features) - weighted(features, self.decoder) - self.bias.to(features)
        if self.skip is None:
            return Said(features, rest[..., None, :])
        skipped = read.to(features) @ self.skip.to(features).T
        return Said(features, torch.stack([skipped, rest - skipped], -2))

    def join(self, said: Said) -> Tensor:
        return self.written(said) + self.bias.to(said.features)

    def written(self, delta: Said) -> Tensor:
        return weighted(delta.features, self.decoder) + delta.vectors.sum(-2)

    def mask(self, kept: Tensor) -> Said:
        n = self.n_features
        return Said(kept[..., :n], kept[..., n:, None])

    def effects(self, gradient: Tensor, delta: Said) -> Tensor:
        vectors = (gradient[..., None, :] * delta.vectors).sum(-1)
        return torch.cat([self._through(gradient) * delta.features, vectors], -1)

    def moved(self, delta: Said, unit: Tensor) -> Tensor:
        return torch.cat([delta.features != 0, (delta.vectors != 0).any(-1)], -1)[..., unit]

    def gate(self, said: Said) -> Tensor:
        return (said.features != 0).to(said.features)

    def open(self, gate: Tensor, unit: Tensor) -> Tensor:
        vectors = torch.ones(*gate.shape[:-1], self.count - self.n_features, dtype=torch.bool, device=gate.device)
        return torch.cat([gate != 0, vectors], -1)[..., unit]

    def tangents(self, delta: Said, at: Places) -> Tensor:
        n = self.n_features
        out = delta.vectors[at.example, at.position, (at.unit - n).clamp_min(0)].clone()
        features = at.unit < n
        here = at.where(features)
        out[features] = delta.features[here.example, here.position, here.unit, None] * _rows(
            self.decoder, here.unit, out
        )
        return out

    def cotangents(self, gradient: Tensor, gate: Tensor, at: Places) -> Cotangents:
        n, like = self.n_features, gradient
        rows, gate = at.of(gradient), gate.to(gradient)
        read = torch.zeros(len(at), self.encoder.weight.shape[1], dtype=like.dtype, device=like.device)
        features, error = at.unit < n, at.unit == self.count - 1
        here = at.where(features)
        through = (rows[features] * _rows(self.decoder, here.unit, like)).sum(-1)
        through = through * gate[here.example, here.position, here.unit]
        read[features] = through[:, None] * _rows(self.encoder.weight, here.unit, like)
        if bool(error.any()):
            read[error] = -self._read_back(rows[error], at.where(error).of(gate))
        if self.skip is not None:
            skipped = rows @ self.skip.to(like)
            skips = (~features & ~error)[:, None]
            read = torch.where(skips, skipped, torch.where(error[:, None], read - skipped, read))
        own = torch.where(error[:, None], rows, 0.0)
        return Cotangents(own + read, None) if self.reads_itself else Cotangents(own, read)

    def _through(self, gradient: Tensor) -> Tensor:
        return torch.cat([gradient @ part.to(gradient).T for _, part in chunks(self.decoder)], -1)

    def _read_back(self, gradient: Tensor, gate: Tensor) -> Tensor:
        """((G W_decᵀ) gate) W_enc."""
        return weighted(self._through(gradient) * gate, self.encoder.weight)


def _rows(matrix: Matrix, index: Tensor, like: Tensor) -> Tensor:
    return rows_of(matrix, index).to(like)
