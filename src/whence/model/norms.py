"""A norm as an affine map at the scale it had: N(x) = gain * c(x) / sigma + bias.

c removes the mean for a LayerNorm and is the identity for an RMSNorm. No class name or (1 + weight) convention is read:
the norm is probed. For v with mean 0 and mean square 1,
    bias = (N(v) + N(-v)) / 2,    gain = (N(v) - N(-v)) / 2v,    centred iff N(v + 1) = N(v).
The gain carries a factor (1 + eps)^-1/2, which cancels: sigma is the least-squares scale that maps gain * c(x) to
N(x) - bias, so eps is never read either. A covector comes back as pull(c) = C(gain * c) / sigma, with the constant
bias . c. Cost: three evaluations on one vector. Not for norms that take a second input.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.hooks import hooks_paused
from whence.model.linear import accumulation_dtype


@dataclass(frozen=True, eq=False)
class NormMap:
    """What a norm does to a vector once its scale is held."""

    gain: Float[Tensor, "*head d_model"]  # norms of queries and keys may have one for each head
    bias: Float[Tensor, "*head d_model"]
    centred: bool

    def to(self, like: Tensor) -> "NormMap":
        """The same map in the dtype and on the device of `like`."""
        return NormMap(self.gain.to(like), self.bias.to(like), self.centred)

    def without_gain(self) -> "NormMap":
        """c(x) / sigma alone."""
        return NormMap(torch.ones_like(self.gain), torch.zeros_like(self.bias), self.centred)

    def centre(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """c(x)."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def pull(self, covector: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The covector before the norm, up to the factor 1 / sigma of each row."""
        return self.centre(self.gain.to(covector) * covector)

    def constant(self, covector: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows"]:
        """What the norm's bias adds."""
        return covector @ self.bias.to(covector)

    def inverse_scale(
        self, x: Float[Tensor, "*rows d_model"], y: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows"]:
        """1 / sigma of each row, from the norm's input x and output y."""
        unit = self.gain * self.centre(x.to(self.gain))
        squares = unit.square().sum(-1)
        return (unit * (y.to(self.gain) - self.bias)).sum(-1) / squares.clamp_min(torch.finfo(unit.dtype).tiny)

    def misfit(self, x: Float[Tensor, "*rows d_model"], y: Float[Tensor, "*rows d_model"]) -> float:
        """Largest error of gain * c(x) / sigma + bias against y, relative to the largest |y|."""
        y = y.to(self.gain)
        again = self.gain * self.centre(x.to(self.gain)) * self.inverse_scale(x, y)[..., None] + self.bias
        return float((again - y).abs().max() / y.abs().max().clamp_min(1e-30))


def probe_norm(norm: nn.Module, width: int) -> NormMap:
    """The affine form of a norm of this width, in the accumulation dtype.

    Raises:
        UnsupportedModelError: the module is no norm of one input.
    """
    parameters = list(norm.parameters())
    device = next((p.device for p in parameters if p.device.type != "meta"), torch.device("cpu"))
    dtype = accumulation_dtype(parameters[0].dtype if parameters else torch.get_default_dtype())
    offloaded = "forward" in vars(norm) or any(p.device.type == "meta" for p in parameters)
    # A copy in the accumulation dtype, so that a bfloat16 norm's gain is read without rounding its product.
    wide = None if offloaded else deepcopy(norm).to(dtype)
    probe = _probe_vector(width).to(device, dtype)
    narrow = parameters[0].dtype if parameters else dtype

    def run(x: Tensor) -> Tensor:
        return norm(x.to(narrow)).to(dtype) if wide is None else type(norm).forward(wide, x)

    with torch.no_grad(), hooks_paused():  # the probe may run inside a hook of this very module
        try:
            plus, minus, shifted = run(probe), run(-probe), run(probe + 1)
        except TypeError as error:
            raise UnsupportedModelError(f"{type(norm).__name__} is not a norm of one input: {error}") from error
    centred = torch.allclose(shifted, plus, atol=1e-2 if wide is None else 1e-4, rtol=1e-3)
    return NormMap((plus - minus) / (2 * probe), (plus + minus) / 2, centred)


def _probe_vector(width: int) -> Tensor:
    """Mean 0, mean square 1, no zero: alternating signs, and a closing triple where the width is odd."""
    alternating = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(width // 2 + 1)[:width]
    if width % 2:
        alternating[-3:] = torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64) / 2**0.5
    return alternating
