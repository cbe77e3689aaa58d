"""Tensors whose bytes are gone, which refuse to be computed with until they have them again.

torch multiplies a CPU tensor by one on the meta device without an error, and gives whatever lay in memory. So a weight
that is away leaves a meta tensor in its module that answers questions about its shape and nothing else, and the weight
itself, which modules elsewhere may hold, refuses in the same way.
"""

from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from whence.errors import WhenceError
from whence.model.spans import Part, Span

HARMLESS = {"__get__", "__hash__", "__repr__", "numel", "size", "dim", "is_floating_point", "element_size"}


class Away(Tensor):
    """Stands for a weight that is on disk."""

    path: str

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what needs no values.

        Raises:
            WhenceError: anything else.
        """
        if func.__name__ in HARMLESS:
            answer = super().__torch_function__(func, types, args, kwargs)
            if not isinstance(answer, Tensor):  # `weight.device` is no tensor; `weight.T` and `weight.data` are
                return answer
        name = next((one.path for one in args if isinstance(one, Away)), "a weight")
        raise WhenceError(
            f"{name} is on disk and cannot be used: run the model after the block of whence.offloaded(..., 'disk')"
        )


def leave(span: Span) -> None:
    """Let go of the bytes of some tensors."""
    for part in span.parts:
        stand_in = _named(torch.empty_strided(part.shape, part.stride, dtype=part.dtype, device="meta"), part)
        part.hold(stand_in)
        part.tensor.data = torch.empty(0, dtype=part.dtype, device=span.device)
        _named(part.tensor, part)


def come_back(span: Span, raw: UInt8[Tensor, " byte"]) -> None:
    """Give the tensors bytes again; also if leaving was interrupted."""
    for part in span.parts:
        part.tensor.__class__ = part.kind
        vars(part.tensor).pop("path", None)
    span.lie_in(raw)


def _named(tensor: Any, part: Part) -> Tensor:
    tensor.__class__ = Away  # in place: parameters stay the same objects
    tensor.path = part.path
    return tensor
