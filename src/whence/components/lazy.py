"""Matrices of which only the asked rows are read: a row a feature, in a safetensors file or in memory.

A dictionary of a large model holds more numbers than a machine's memory, and a prompt touches few of them. A `LazyRows`
knows where a tensor lies and reads rows when asked; what it hands out is float32 (float64 stays). Files that keep a row
as a column, or several layers in one tensor, are described by `before` and `after`. Cost: what is asked for, read from
disk or from the system's file cache. Knows nothing of what the rows mean.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from whence.errors import FileFormatError

CHUNK = 8192  # rows held at once where all of them are passed over
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class LazyRows:
    """A tensor in a safetensors file, read by rows.

    Args:
        file: The file.
        name: The tensor's name in it.
        before: What is taken of the stored axes before that of the rows: `(2,)` reads layer 2 of [layer, row, column],
            `(slice(None),)` the rows of a matrix stored transposed.
        after: What is taken of the axes after it.
        scale: A factor for each row.
        device: Where rows are handed out.

    Raises:
        FileFormatError: The file is no safetensors file or has no such tensor.

    Example:
        >>> rows = LazyRows(Path("transcoder.safetensors"), "W_dec")  # doctest: +SKIP
        >>> rows.rows(torch.tensor([3, 17])).shape  # doctest: +SKIP
        torch.Size([2, 2304])
    """

    file: Path
    name: str
    before: tuple[int | slice, ...] = ()
    after: tuple[int | slice, ...] = ()
    scale: Float[Tensor, " row"] | None = None
    device: torch.device = field(default=_CPU)

    @cached_property
    def shape(self) -> torch.Size:
        """Rows first."""
        stored = torch.empty(self._stored.get_shape(), device="meta")
        return self._rows_first(stored[(*self.before, slice(None), *self.after)]).shape

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of what is handed out."""
        return torch.float64 if self._stored.get_dtype() == "F64" else torch.float32

    def read(self, start: int, stop: int) -> Float[Tensor, "row *rest"]:
        """The rows from start up to stop; every number that leaves the file passes here."""
        part = self._rows_first(self._stored[(*self.before, slice(start, stop), *self.after)])
        part = part.to(self.device, self.dtype)
        return part if self.scale is None else part * self.scale[start:stop, None].to(part)

    def rows(self, index: Int[Tensor, " k"]) -> Float[Tensor, "k *rest"]:
        """These rows, in this order; each is read once, neighbours together."""
        if not len(index):
            return torch.empty(0, *self.shape[1:], dtype=self.dtype, device=self.device)
        found, place = index.cpu().unique(return_inverse=True)
        if found[0] < 0 or found[-1] >= self.shape[0]:
            raise IndexError(f"{self.name} has rows 0 to {self.shape[0] - 1}, asked for {found[0]} to {found[-1]}.")
        runs = found.tensor_split((found.diff() != 1).nonzero()[:, 0] + 1)
        parts = [self.read(int(run[0]), int(run[-1]) + 1) for run in runs]
        return torch.cat(parts)[place.to(self.device)]

    def to(self, device: torch.device | str) -> "LazyRows":
        """The same rows, handed out elsewhere."""
        return replace(self, device=torch.device(device))

    def _rows_first(self, stored: Tensor) -> Tensor:
        axis = sum(isinstance(taken, slice) for taken in self.before)
        return stored.movedim(axis, 0)

    @cached_property
    def _stored(self) -> Any:
        try:
            return open_tensors(self.file).get_slice(self.name)
        except SafetensorError as error:
            raise FileFormatError(f"{self.file} has no tensor {self.name!r}: {error}.") from error


Matrix: TypeAlias = Tensor | LazyRows


def open_tensors(file: Path) -> Any:
    """A safetensors file, opened without reading its numbers: `.keys()`, `.get_tensor(name)`, `.get_slice(name)`.

    Raises:
        FileFormatError: It is not one.
    """
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{file} is not a safetensors file: {error}. Download it again.") from error


def widened(tensor: Tensor) -> Tensor:
    """In float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def rows_of(matrix: Matrix, index: Int[Tensor, " k"]) -> Float[Tensor, "k *rest"]:
    """These rows of a matrix in memory or in a file."""
    if isinstance(matrix, LazyRows):
        return matrix.rows(index)
    return widened(matrix[index.to(matrix.device)])


def whole(matrix: Matrix) -> Float[Tensor, "*shape"]:
    """All rows."""
    return matrix.read(0, matrix.shape[0]) if isinstance(matrix, LazyRows) else widened(matrix)


def chunks(matrix: Matrix, size: int = CHUNK) -> Generator[tuple[slice, Float[Tensor, "row *rest"]]]:
    """All rows, `size` at a time, with where they stand."""
    for start in range(0, matrix.shape[0], size):
        place = slice(start, min(start + size, matrix.shape[0]))
        part = matrix.read(place.start, place.stop) if isinstance(matrix, LazyRows) else widened(matrix[place])
        yield place, part
