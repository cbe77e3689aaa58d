"""The file of prepared rows: safetensors, written as the rows come and read in part.

    tokens [row, length]   lengths [row]   order [row]   seen [distinct token]      all int32, one after the other

The number of rows is known last, so the header has a fixed size and is written last; it is padded with spaces, as the
format allows. Cost: of reading, the bytes that are asked for. Knows nothing of folders.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from whence.corpus.cutting import Block
from whence.errors import FileFormatError

_HEADER, _WIDTH = 512, 4  # bytes: of the header with its length, and of a number


@dataclass(frozen=True)
class Layout:
    """Where everything lies.

    Args:
        rows: Number of rows.
        length: Places in a row.
        distinct: Number of different tokens.
    """

    rows: int
    length: int
    distinct: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the file, in its order."""
        one = (self.rows,)
        return {"tokens": (self.rows, self.length), "lengths": one, "order": one, "seen": (self.distinct,)}

    def start(self, name: str) -> int:
        """Bytes before an array, those of the header not counted."""
        names = list(self.shapes)
        return sum(self._bytes(other) for other in names[: names.index(name)])

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return _HEADER + sum(map(self._bytes, self.shapes))

    @property
    def header(self) -> bytes:
        """The first bytes of the file."""
        said = {
            name: {"dtype": "I32", "shape": shape, "data_offsets": [self.start(name), self.start(name) + size]}
            for name, shape in self.shapes.items()
            for size in (self._bytes(name),)
        }
        room = _HEADER - 8
        return room.to_bytes(8, "little") + json.dumps(said).encode().ljust(room)

    def _bytes(self, name: str) -> int:
        return _WIDTH * torch.Size(self.shapes[name]).numel()


class Writer:
    """Writes rows to a file as they come.

    Args:
        file: Open for writing, empty.
    """

    def __init__(self, file: BufferedIOBase) -> None:
        self.file = file
        self.rows = self.tokens = 0
        self._length = 0
        self._lengths: list[Tensor] = []
        self._present = torch.zeros(0, dtype=torch.bool)
        file.write(bytes(_HEADER))

    def add(self, block: Block) -> None:
        """Write the next rows, all as long as the first ones."""
        self._write(block.ids)
        self._length = block.ids.shape[1]
        self._lengths.append(block.lengths)
        self.rows += len(block.lengths)
        self.tokens += int(block.lengths.sum())
        real = block.ids[torch.arange(self._length) < block.lengths[:, None]]
        missing = int(real.max()) + 1 - len(self._present)
        if missing > 0:
            self._present = torch.cat([self._present, torch.zeros(missing, dtype=torch.bool)])
        self._present[real] = True

    def finish(self, order: Iterable[int]) -> Layout:
        """Write what is known at the end.

        Args:
            order: The rows in the order in which batches take them.
        """
        seen = self._present.nonzero()[:, 0]
        for numbers in (torch.cat(self._lengths), torch.tensor(list(order)), seen):
            self._write(numbers)
        layout = Layout(self.rows, self._length, len(seen))
        self.file.seek(0)
        self.file.write(layout.header)
        return layout

    def _write(self, numbers: Tensor) -> None:
        self.file.write(numbers.to(torch.int32).contiguous().numpy().tobytes())


class Reader:
    """Reads parts of a file of rows; opening it reads the header alone, and nothing is kept open.

    Args:
        file: The file.
        layout: What it is said to hold.

    Raises:
        FileFormatError: The file is missing, or its size or header is not that of the layout.
    """

    def __init__(self, file: Path, layout: Layout) -> None:
        size = file.stat().st_size if file.is_file() else 0
        if size != layout.size:
            raise FileFormatError(f"{file} has {size} bytes, not {layout.size}: it is incomplete. Prepare it again.")
        with file.open("rb", buffering=0) as stream:
            header = stream.read(_HEADER)
        if header != layout.header:
            raise FileFormatError(f"{file} is damaged: its header is not that of {layout}. Prepare it again.")
        self._file, self._layout = file, layout

    def numbers(self, name: str, start: int, stop: int) -> Int[Tensor, " number"]:
        """Consecutive numbers of an array, counted over all of its rows."""
        return self.parts(name, [(start, stop)])[0]

    def parts(self, name: str, spans: Iterable[tuple[int, int]]) -> list[Int[Tensor, " _"]]:
        """Several (start, stop) of an array, each of at least one number.

        They are read and not mapped: a mapped page would drag in its neighbours, and count as memory ever after.
        """
        first = _HEADER + self._layout.start(name)
        found: list[Tensor] = []
        with self._file.open("rb", buffering=0) as stream:
            for start, stop in spans:
                stream.seek(first + _WIDTH * start)
                part = bytearray(stream.read(_WIDTH * (stop - start)))
                found.append(torch.frombuffer(part, dtype=torch.int32).long())
        return found
