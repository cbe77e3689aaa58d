"""One linear module read backwards: covectors through it, rows of it, its constant.

A plain `nn.Linear` or GPT-2's `Conv1D` is read from its weight. Anything else that computes y = W x + b, be it
quantised, wrapped by an adapter or offloaded to another device, is asked through a vector-Jacobian product of that one
module: W is not assembled (but by `matrix_of`), and W^T c costs one forward and one backward over as many rows as there
are covectors.
A module that is not affine in its input gives wrong numbers here; the sum check of every ledger shows it.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.hooks import hooks_paused

ROWS_AT_ONCE = 1024  # covectors per vector-Jacobian product: bounds the module's activations


def is_plain(module: nn.Module) -> bool:
    """Whether the module's weight tensor is the whole story of its map.

    The exact type decides: an adapter is a subclass or offers a `weight` attribute that leaves the adapter out. An
    instance-level `forward` (offloading) or a weight on the meta device says that the tensor is not there to be read.
    """
    from transformers.pytorch_utils import Conv1D

    if type(module) not in (nn.Linear, Conv1D) or "forward" in vars(module):
        return False
    weight = module.weight
    return isinstance(weight, Tensor) and weight.device.type != "meta" and weight.dtype.is_floating_point


def weight_of(module: Any) -> Float[Tensor, "out in"]:
    """The matrix of a plain module, rows being outputs whichever way it is stored; it carries no gradient."""
    weight = module.weight.detach()
    return weight if isinstance(module, nn.Linear) else weight.T


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in: float32, or float64 for a float64 model."""
    return torch.promote_types(dtype, torch.float32)


def pull_linear(module: nn.Module, covector: Float[Tensor, "*rows out"], width: int) -> Float[Tensor, "*rows in"]:
    """W^T c for each covector c, in the covectors' dtype.

    Args:
        module: computes W x + b.
        covector: in the space the module writes to.
        width: number of input channels, which a wrapped module may not state.
    """
    if is_plain(module):
        return covector @ weight_of(module).to(covector)
    flat = covector.reshape(-1, covector.shape[-1])
    pulled = [_vjp(module, rows, width) for rows in flat.split(ROWS_AT_ONCE)]
    return torch.cat(pulled).reshape(*covector.shape[:-1], width)


def _vjp(module: nn.Module, covector: Float[Tensor, "rows out"], width: int) -> Float[Tensor, "rows in"]:
    with torch.enable_grad(), hooks_paused():
        point = torch.zeros(len(covector), width, dtype=_input_dtype(module), device=covector.device)
        output = module(point.requires_grad_())
        (gradient,) = torch.autograd.grad(output, point, covector.to(output))
    return gradient.to(covector)


def may_have_constant(module: nn.Module) -> bool:
    """Whether the module may add a constant: a plain one shows it, a wrapped one may hide it."""
    return not is_plain(module) or isinstance(module.bias, Tensor)


def constant_of(module: nn.Module, width: int, like: Tensor) -> Float[Tensor, " out"] | None:
    """The module's value at zero, in the dtype and on the device of `like`; None where there is plainly none."""
    if is_plain(module):
        bias = module.bias
        return bias.detach().to(like) if isinstance(bias, Tensor) else None
    with torch.no_grad(), hooks_paused():
        return module(torch.zeros(1, width, dtype=_input_dtype(module), device=like.device))[0].to(like)


def matrix_of(module: nn.Module, outputs: int, width: int, like: Tensor) -> Float[Tensor, "out in"]:
    """W itself, in the dtype and on the device of `like`; a module that is not plain is asked row by row."""
    if is_plain(module):
        return weight_of(module).to(like)
    return pull_linear(module, torch.eye(outputs, dtype=like.dtype, device=like.device), width)


def rows_of(module: nn.Module, index: Int[Tensor, " k"], width: int, outputs: int) -> Float[Tensor, "k in"]:
    """Rows of W, in the accumulation dtype; with tied embeddings nothing is transposed or untied."""
    dtype = accumulation_dtype(_input_dtype(module))
    if is_plain(module):
        matrix = weight_of(module)
        return matrix[index.to(matrix.device)].to(dtype)
    device = next((p.device for p in module.parameters() if p.device.type != "meta"), index.device)
    return pull_linear(module, nn.functional.one_hot(index.to(device), outputs).to(dtype), width)


def _input_dtype(module: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in (*module.parameters(), *module.buffers()) if p.dtype.is_floating_point)
    return next(floating, torch.get_default_dtype())


def width_into(module: nn.Module | None, what: str) -> int:
    """How many channels a linear map is given.

    Raises:
        UnsupportedModelError: it does not say.
    """
    weight = {} if module is None else dict(module.named_parameters(recurse=False))
    stated = getattr(module, "in_features", None) or (weight["weight"].shape[0] if "weight" in weight else None)
    if not isinstance(stated, int):
        raise UnsupportedModelError(f"{what}: {type(module).__name__} does not say how many channels it is given")
    return stated


def width_out_of(module: nn.Module, what: str) -> int:
    """How many channels a linear map puts out.

    Raises:
        UnsupportedModelError: it does not say.
    """
    stated = getattr(module, "out_features", None) or getattr(module, "nf", None)  # the second is Conv1D's
    if not isinstance(stated, int):
        raise UnsupportedModelError(f"{what}: {type(module).__name__} does not say how many channels it puts out")
    return stated
