"""A container of experts, in the form transformers gives every mixture: 3-D parameters, one slice an expert.

One chosen expert adds  weight * (W_down[e] h + b_down[e])  with  h = act(gate) * up  of its input; h is recomputed
here for the rows that are wanted. What is not in this form (packed 4-bit experts, say) is refused where experts or
their neurons are asked for; its write as a whole needs none of this.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from whence.errors import UnsupportedModelError


def expert_sizes(experts: nn.Module) -> tuple[int, int]:
    """Number of experts, and neurons of one.

    Raises:
        UnsupportedModelError: the parameters are not in the common form.
    """
    down = dict(experts.named_parameters(recurse=False)).get("down_proj")
    if down is None or down.ndim != 3 or not down.dtype.is_floating_point or down.device.type == "meta":
        raise UnsupportedModelError(
            f"{type(experts).__name__} does not hold its experts as one 3-D `down_proj` in memory, so they cannot be "
            "told apart; load the model unquantised and not offloaded, or ask for by='component'."
        )
    return down.shape[0], down.shape[1] if _transposed(experts) else down.shape[2]


def has_bias(experts: nn.Module) -> bool:
    """Whether each expert's last map has a bias."""
    return "down_proj_bias" in dict(experts.named_parameters(recurse=False))


def down_map(experts: Any, expert: int, like: Tensor) -> Float[Tensor, "d_model neuron"]:
    """One expert's last map, in the dtype of `like`."""
    down = experts.down_proj[expert].to(like)
    return down.T if _transposed(experts) else down


def neurons(experts: Any, expert: int, x: Float[Tensor, "line d_model"]) -> Float[Tensor, "line neuron"]:
    """What goes into one expert's last map for these inputs, as the model computes it."""
    matrix = experts.gate_up_proj[expert]
    bias = experts.gate_up_proj_bias[expert] if "gate_up_proj_bias" in experts._parameters else None
    gate_up = linear(x, matrix.T if _transposed(experts) else matrix, bias)
    own = getattr(experts, "_apply_gate", None)
    if own is not None:
        return own(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return experts.act_fn(gate) * up


def _transposed(experts: Any) -> bool:
    """Stored [in, out] rather than [out, in]; releases that do not say so hold only gpt-oss this way."""
    stated = getattr(experts, "is_transposed", None)
    return bool(stated) if stated is not None else type(experts).__name__.startswith("GptOss")


@torch.no_grad()
def bias_of(experts: Any, expert: int, like: Tensor) -> Float[Tensor, " d_model"]:
    """One expert's constant."""
    return experts.down_proj_bias[expert].to(like)
