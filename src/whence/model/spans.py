"""The bytes of a module's weights: what moves together when weights move.

A span is the bytes of one storage that some tensors share. Moving spans rather than tensors keeps tied weights tied and
views of one buffer views of one buffer, and asks nothing about what the bytes mean: integers and packed 4-bit codes are
bytes like any other.

Cost: nothing is copied here. Knows no tensors without plain bytes (sparse, or subclasses around others), and no tensors
that a module keeps outside its parameters and buffers; both stay where they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

ALIGNMENT = 16  # no dtype is larger, so that a tensor's offset in its span is a whole number of elements


@dataclass(eq=False)
class Part:
    """One tensor of a span, and every place where a module holds it."""

    path: str
    tensor: Tensor
    places: list[tuple[dict[str, Any], str]]

    def __post_init__(self) -> None:
        """Note what the tensor is and where it lies, which is lost once it has moved."""
        self.kind = type(self.tensor)
        self.shape, self.stride, self.dtype = self.tensor.shape, self.tensor.stride(), self.tensor.dtype
        self.start = int(self.tensor.storage_offset()) * self.dtype.itemsize
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        self.stop = self.start + (last + 1) * self.dtype.itemsize

    def hold(self, tensor: Tensor) -> None:
        """Put a tensor into this one's places."""
        for owner, name in self.places:
            owner[name] = tensor


@dataclass(eq=False)
class Span:
    """Bytes of one storage, from `start` to `stop`, and the tensors in them."""

    start: int
    stop: int
    parts: list[Part]

    def __post_init__(self) -> None:
        """Note the device, which is lost once the tensors have moved."""
        self.device = self.parts[0].tensor.device

    def __len__(self) -> int:
        """Number of bytes."""
        return self.stop - self.start

    def raw(self) -> UInt8[Tensor, " byte"]:
        """The bytes themselves, not a copy."""
        storage = self.parts[0].tensor.untyped_storage()
        return torch.empty(0, dtype=torch.uint8, device=self.device).set_(storage, self.start, (len(self),), (1,))

    def lie_in(self, raw: UInt8[Tensor, " byte"]) -> None:
        """Let the tensors have their values from these bytes, and stand in their places."""
        for part in self.parts:
            offset = (part.start - self.start) // part.dtype.itemsize
            empty = torch.empty(0, dtype=part.dtype, device=raw.device)
            part.tensor.data = empty.set_(raw.untyped_storage(), offset, part.shape, part.stride)
            part.hold(part.tensor)


def spans_of(roots: Iterable[nn.Module]) -> list[Span]:
    """The bytes of all parameters and buffers in some modules.

    Left out: modules that hold a tensor on the meta device, whose weights something else looks after, and what shares
    bytes with those modules.
    """
    parts, staying = _parts(roots)
    storages: dict[int, list[Part]] = {}
    for part in parts:
        storages.setdefault(part.tensor.untyped_storage().data_ptr(), []).append(part)
    spans = [span for together in storages.values() for span in _merged(together)]
    return [span for span in spans if not any(id(part.tensor) in staying for part in span.parts)]


def _merged(parts: list[Part]) -> list[Span]:
    """Spans of one storage, which may be a whole file of which most belongs to other modules."""
    spans: list[Span] = []
    for part in sorted(parts, key=lambda part: part.start):
        if spans and part.start < spans[-1].stop:
            spans[-1].parts.append(part)
            spans[-1].stop = max(spans[-1].stop, part.stop)
        else:
            spans.append(Span(part.start - part.start % ALIGNMENT, part.stop, [part]))
    return spans


def _parts(roots: Iterable[nn.Module]) -> tuple[list[Part], set[int]]:
    """Each tensor once, and the identities of those that have to stay."""
    found: dict[int, Part] = {}
    staying: set[int] = set()
    visited: set[nn.Module] = set()
    for root in roots:
        for path, module in root.named_modules(memo=visited):
            held = _held(module)
            if any(tensor.device.type == "meta" for _, _, tensor in held):
                staying |= {id(tensor) for _, _, tensor in held}
            for owner, name, tensor in filter(lambda here: _has_bytes(here[2]), held):
                full = ".".join(filter(None, (type(root).__name__, path, name)))
                found.setdefault(id(tensor), Part(full, tensor, [])).places.append((owner, name))
    return list(found.values()), staying


def _held(module: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    owners: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    return [(owner, name, tensor) for owner in owners for name, tensor in owner.items() if tensor is not None]


def _has_bytes(tensor: Tensor) -> bool:
    plain = tensor.layout == torch.strided and not tensor.is_quantized and not is_traceable_wrapper_subclass(tensor)
    return plain and tensor.device.type != "meta" and tensor.numel() > 0
