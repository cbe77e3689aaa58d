"""Where each array of a store of dataset attributions lies: safetensors files whose heads follow from their arrays.

    length of the head, 8 bytes | head: JSON, {name: {dtype, shape, data_offsets}}, padded to 8 bytes | the arrays

A head needs shapes alone, and shapes follow from axes: so a file can be written array by array in any order, and read
without reading its head. A file holds the blocks of one target site; an array is named `{source}/{statistic}`. A block
of which only the largest columns of each row are kept has `columns` (which, of each row), and for each statistic their
values and, as `{statistic}.total`, the sum over all columns. Cost: a few hundred bytes an array. It opens no file.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from whence.results.dataset_axes import Axis, Header

Pair = tuple[str, str]  # target site, source site
Shape = tuple[int, ...]
AXES, EXTRA = "axes.safetensors", "extra.safetensors"
COLUMNS, TOTAL = "columns", ".total"
_CODES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
    torch.bool: "BOOL",
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _CODES}


@dataclass(frozen=True)
class Place:
    """An array in a file: its first byte, shape and type."""

    start: int
    shape: Shape
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Packing:
    """The arrays of one safetensors file, one behind the other.

    Args:
        arrays: Name, shape and type of each.

    Example:
        >>> packing = Packing([("a", (2,), torch.float64), ("b", (3,), torch.float64)])
        >>> packing.places["b"].start - packing.places["a"].start
        16
    """

    def __init__(self, arrays: Iterable[tuple[str, Shape, torch.dtype]]) -> None:
        self.arrays = tuple(arrays)

    @cached_property
    def head(self) -> bytes:
        """What comes before the arrays."""
        said, end = dict[str, object](), 0
        for name, shape, dtype in self.arrays:
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            said[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(said, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each array lies."""
        out, start = dict[str, Place](), len(self.head)
        for name, shape, dtype in self.arrays:
            out[name] = Place(start, shape, dtype)
            start += out[name].size
        return out

    @cached_property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + sum(place.size for place in self.places.values())

    def view(self, storage: torch.UntypedStorage, name: str) -> Tensor:
        """An array in the mapped file, not copied."""
        place = self.places[name]
        flat = torch.empty(0, dtype=place.dtype).set_(storage)
        begin = place.start // place.dtype.itemsize
        return flat[begin : begin + math.prod(place.shape)].view(place.shape)


@dataclass(frozen=True, eq=False)
class Layout:
    """The files of a store, by what it holds.

    Args:
        header: Axes, pairs and statistics.
        dtype: Of all blocks.
        top: Pairs of which only so many columns of each row are kept.
    """

    header: Header
    dtype: torch.dtype
    top: Mapping[Pair, int]

    @cached_property
    def targets(self) -> dict[str, Packing]:
        """The file of each target site that has blocks."""
        pairs: dict[str, list[Pair]] = {}
        for pair in self.header.pairs:
            pairs.setdefault(pair[0], []).append(pair)
        return {target: Packing(self._arrays(of)) for target, of in pairs.items()}

    def names(self, pair: Pair) -> tuple[str, ...]:
        """The arrays that a pair has, in their order."""
        statistics = self.header.of(pair)
        if pair not in self.top:
            return statistics
        return (COLUMNS, *(name for statistic in statistics for name in (statistic, statistic + TOTAL)))

    def shape(self, pair: Pair, name: str) -> Shape:
        """The shape of one of them."""
        rows = len(self.header.targets[pair[0]].ids)
        if name.endswith(TOTAL):
            return (rows,)
        return rows, self.top.get(pair, len(self.header.sources[pair[1]].ids))

    def _arrays(self, pairs: Iterable[Pair]) -> Iterator[tuple[str, Shape, torch.dtype]]:
        for pair in pairs:
            for name in self.names(pair):
                yield f"{pair[1]}/{name}", self.shape(pair, name), torch.int64 if name == COLUMNS else self.dtype


def axes_packing(targets: Iterable[Axis], sources: Iterable[Axis]) -> Packing:
    """The file of the axes: the ids and quantities of every site."""
    names = [name for side, axes in (("target", targets), ("source", sources)) for name in _of_axes(side, axes)]
    return Packing((name, (lines,), torch.int64 if name.endswith("/ids") else torch.float64) for name, lines in names)


def axes_arrays(header: Header) -> dict[str, Tensor]:
    """What that file holds."""
    out: dict[str, Tensor] = {}
    for side, axes in (("target", header.targets), ("source", header.sources)):
        for axis in axes.values():
            out[f"{side}/{axis.site}/ids"] = axis.ids
            out |= {f"{side}/{axis.site}/{name}": number.double() for name, number in axis.quantities.items()}
    return out


def _of_axes(side: str, axes: Iterable[Axis]) -> Iterator[tuple[str, int]]:
    for axis in axes:
        for name in ("ids", *axis.quantities):
            yield f"{side}/{axis.site}/{name}", len(axis.ids)
