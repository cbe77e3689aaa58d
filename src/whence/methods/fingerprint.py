"""Which weights a model has, in a few letters.

    b = the bits of a weight in float64, a whole number      of every tensor: Σ b and Σ (2 i + 1) b, modulo 2⁶⁴

Whole numbers add up to the same on any device and with any number of threads, which floats do not. One weight that
differs, or two that changed places, change the sums. Cost: one pass over the weights, a few megabytes at a time. It
does not know buffers.
"""

import hashlib

import torch
from jaxtyping import Shaped
from torch import Tensor

from whence.model.model import Model

_AT_ONCE = 1 << 18  # numbers: 2 MiB, which a cache holds


def fingerprint(model: Model) -> str:
    """Tells checkpoints apart that differ in one number.

    Args:
        model: whose weights.

    Example:
        >>> fingerprint(model)  # doctest: +SKIP
        '1f0c9a83b2d47e65'
    """
    found = hashlib.sha256()
    for name, weight in model.hf.named_parameters():
        found.update(f"{name} {tuple(weight.shape)} {_sums(weight.detach())}\n".encode())
    return found.hexdigest()[:16]


def _sums(weight: Shaped[Tensor, "..."]) -> tuple[int, int]:
    """Both sums of one tensor's bits."""
    plain, placed = 0, 0
    odd = 2 * torch.arange(_AT_ONCE, device=weight.device) + 1
    for number, some in enumerate(weight.reshape(-1).split(_AT_ONCE)):
        bits = some.double().view(torch.int64)
        total = int(bits.sum())
        plain, placed = plain + total, placed + int((bits * odd[: len(bits)]).sum()) + 2 * number * _AT_ONCE * total
    return plain % 2**64, placed % 2**64
