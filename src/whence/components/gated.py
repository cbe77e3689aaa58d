"""Gated encoders as what they compute: a jumprelu on the magnitude path.

A gated encoder has one matrix and two paths through it, with p = W x:

    f = max(exp(r) p + b_mag, 0)   where   p + b_gate > 0,   else 0

Both paths are increasing in p, so the gate opens exactly where the magnitude exceeds b_mag − exp(r) b_gate. With rows
exp(r) W and bias b_mag that is a jumprelu with this threshold. Nothing is approximated. Cost: one pass over the biases.
"""

from jaxtyping import Float
from torch import Tensor

from whence.components.activation import Activation


def open_gate(
    gate_bias: Float[Tensor, " feature"],
    magnitude_bias: Float[Tensor, " feature"],
    log_scale: Float[Tensor, " feature"],
) -> tuple[Float[Tensor, " feature"], Activation]:
    """What the encoder's rows are multiplied by, and the nonlinearity that stands for the gate.

    Args:
        gate_bias: b_gate.
        magnitude_bias: b_mag, which stays the encoder's bias.
        log_scale: r.

    Example:
        >>> import torch
        >>> scale, activation = open_gate(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0.0]))
        >>> scale.item(), activation.threshold.item()
        (1.0, -0.5)
    """
    scale = log_scale.exp()
    return scale, Activation("jumprelu", threshold=magnitude_bias - scale * gate_bias)
