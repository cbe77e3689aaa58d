"""Sums of float32 numbers in float64, a few rows at a time.

A reduction to float64 first makes a float64 copy of what it reduces, twice the size of the table itself. Here the copy
is of `AT_ONCE` numbers, which stay in the processor's cache. Cost: one read. Knows nothing of what the numbers are.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

AT_ONCE = 2**17


def sum_and_magnitude(
    values: Float[Tensor, "*axes"], dim: int
) -> tuple[Float64[Tensor, "*rest"], Float64[Tensor, "*rest"]]:
    """Σ x and Σ |x| over one axis, in float64.

    Args:
        values: the numbers.
        dim: the axis.

    Example:
        >>> [float(number) for number in sum_and_magnitude(torch.tensor([1.0, -2.0]), 0)]
        [-1.0, 3.0]
    """
    shape = list(values.shape)
    del shape[dim]
    total = values.new_zeros(shape, dtype=torch.float64)
    magnitude = torch.zeros_like(total)
    for part in values.split(max(1, AT_ONCE // max(1, total.numel())), dim):
        wide = part.double()
        total += wide.sum(dim)
        magnitude += wide.abs().sum(dim)
    return total, magnitude
