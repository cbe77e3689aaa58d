"""How far a sum of parts may be from the number it explains, and the error that says so.

The bound is a share of the sum of the parts' sizes. Measured on the listed families, three seeds, every granularity and
position: 1e-6 in float32, 2.9e-3 in float16, 2.1e-2 in bfloat16. In 16 bits the model rounds at every residual addition
and at the logits themselves, which no exact decomposition can follow.
"""

import torch
from torch import Tensor

from whence.errors import LedgerError

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def tolerance_of(dtype: torch.dtype) -> float:
    """The bound for a model of this dtype."""
    return TOLERANCE.get(dtype, TOLERANCE[torch.float32])


def refuse_gap(gap: Tensor, size: Tensor, tolerance: float) -> None:
    """Raise if parts do not sum to what they explain.

    Raises:
        LedgerError: with the gap, the size of the parts and the tolerance. NaN counts as a gap.
    """
    relative = gap / size.clamp_min(1e-30)
    worst = float(relative.max())
    if not worst <= tolerance:
        raise LedgerError(
            f"the parts miss the model's own number by {float(gap.flatten()[relative.argmax()]):.3g}, {worst:.1e} "
            f"of the sum of their magnitudes (bound {tolerance:.0e}). The model does something its entry does not "
            "know, or computes NaN; run `whence check` on it and please report the family."
        )
