"""Equal parts of a site's vector as its units: heads, neurons, or the whole as one. Cost: that of the vector."""

from dataclasses import dataclass

import torch
from torch import Tensor

from whence.engine.circuits.units import Cotangents, Places, Said
from whence.model.linear import accumulation_dtype


@dataclass(frozen=True, eq=False)
class BlockUnits:
    """Equal parts of a vector: heads, neurons, or the whole as one; nothing is missed."""

    blocks: int
    width: int
    label: str | None = None  # "head", "neuron"; None for the whole

    @property
    def count(self) -> int:
        return self.blocks

    def name(self, unit: int) -> tuple[str, int | None]:
        return ("", None) if self.label is None else (self.label, unit)

    def split(self, own: Tensor, read: Tensor) -> Said:
        own = own.to(accumulation_dtype(own.dtype))
        return Said(own.new_zeros(*own.shape[:-1], 0), own[..., None, :])

    def join(self, said: Said) -> Tensor:
        return said.vectors[..., 0, :]

    def written(self, delta: Said) -> Tensor:
        return delta.vectors[..., 0, :]

    def mask(self, kept: Tensor) -> Said:
        return Said(
            kept.new_zeros(*kept.shape[:-1], 0), kept.repeat_interleave(self.width // self.blocks, -1)[..., None, :]
        )

    def effects(self, gradient: Tensor, delta: Said) -> Tensor:
        return (gradient * delta.vectors[..., 0, :]).unflatten(-1, (self.blocks, -1)).sum(-1)

    def moved(self, delta: Said, unit: Tensor) -> Tensor:
        return (delta.vectors[..., 0, :] != 0).unflatten(-1, (self.blocks, -1)).any(-1)[..., unit]

    def gate(self, said: Said) -> Tensor:
        return said.features

    def open(self, gate: Tensor, unit: Tensor) -> Tensor:
        return torch.ones(*gate.shape[:-1], len(unit), dtype=torch.bool, device=gate.device)

    def tangents(self, delta: Said, at: Places) -> Tensor:
        return self._only(at.of(delta.vectors[..., 0, :]), at.unit)

    def cotangents(self, gradient: Tensor, gate: Tensor, at: Places) -> Cotangents:
        return Cotangents(self._only(at.of(gradient), at.unit), None)

    def _only(self, rows: Tensor, unit: Tensor) -> Tensor:
        block = torch.arange(self.width, device=rows.device) // (self.width // self.blocks)
        return torch.where(block == unit[:, None], rows, 0.0)
