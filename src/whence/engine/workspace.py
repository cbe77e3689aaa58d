"""Large arrays used over and over: sweeps of many chunks of one size neither allocate nor page in memory anew."""

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor


@dataclass(eq=False)
class Workspace:
    """Arrays by name; what was in one before is gone when its name is taken again."""

    arrays: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of this shape, its contents anything."""
        size, have = prod(shape), self.arrays.get(name)
        if have is None or have.numel() < size or have.dtype != like.dtype or have.device != like.device:
            self.arrays.pop(name, None)  # let go of the old one before there is a new one
            have = self.arrays[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return have[:size].view(shape)
