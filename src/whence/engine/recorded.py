"""One recorded prompt, read in the accumulation dtype: norms at their scales, and what stands around each sublayer.

A sublayer reads the stream through its entry (a norm, and for some families a multiplier after it) and writes through
its exit (an optional post-norm and a multiplier). Both are linear at the recorded scale.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.maps import NormAt
from whence.model.layout import Writer
from whence.model.model import Model
from whence.model.norms import probe_norm
from whence.model.trace import Trace, Write


@dataclass(frozen=True, eq=False)
class Recorded:
    """A model and what one forward pass over one prompt left behind, up to some position."""

    model: Model
    trace: Trace
    length: int

    @property
    def like(self) -> Tensor:
        """A zero of the dtype and on the device of everything here."""
        return torch.zeros((), dtype=self.model.accumulation, device=self.model.device)

    def to(self, tensor: Tensor) -> Tensor:
        """One prompt's rows, in the accumulation dtype on the compute device."""
        return tensor[0].to(self.like)

    def added(self, write: Write) -> Float[Tensor, "pos d_model"]:
        """What a write adds to the stream."""
        return self.to(write.added(self.model.accumulation))

    def norm_at(self, norm: torch.nn.Module, x: Tensor, y: Tensor) -> NormAt:
        """A norm at the scale that took x to y."""
        probed = probe_norm(norm, x.shape[-1])
        return NormAt(probed.to(self.like), self.to(probed.inverse_scale(x, y)))

    def entry(self, writer: Writer, multiplier: float = 1.0) -> NormAt:
        """The norm through which a sublayer reads the stream."""
        if writer.norm is None:
            return NormAt(None, self.like.new_full((self.length,), multiplier), multiplier)
        inverse = self.to(self.trace.scales[writer.norm])
        return NormAt(probe_norm(writer.norm, self.model.d_model).to(self.like), inverse * multiplier, multiplier)

    def exit(self, writer: Writer) -> NormAt:
        """What stands between a sublayer's last map and the stream."""
        m = writer.multiplier
        if writer.post_norm is None:
            return NormAt(None, self.like.new_full((self.length,), m), m)
        inverse = self.to(self.trace.scales[writer.post_norm])
        return NormAt(probe_norm(writer.post_norm, self.model.d_model).to(self.like), inverse * m, m)
