"""Arrays of token ids, in memory or in files, and the documents in them. Files are mapped, and never unpickled.

    [rows, length]: each row is a document        [tokens]: one document, which comes in pieces

Cost: the part that is taken. Knows no vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Integer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from whence.errors import FileFormatError
from whence.model.batch import from_array

NAMES = ("tokens", "input_ids")  # what the tokens are called in a file with several tensors
PIECE = 1 << 18  # tokens of an array that are in memory at a time


@dataclass(frozen=True, eq=False)
class Array:
    """An array that is read in part.

    Args:
        name: For errors.
        shape: [rows, length] or [tokens].
        part: (first, stop) -> these rows or tokens.

    Raises:
        ValueError: Another shape.
    """

    name: str
    shape: tuple[int, ...]
    part: Callable[[int, int], Tensor]

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 2):
            raise ValueError(f"{self.name} has shape {list(self.shape)}; token ids are [tokens] or [rows, length]")

    @property
    def is_long(self) -> bool:
        """Whether it is one document, that comes in pieces."""
        return len(self.shape) == 1

    def __iter__(self) -> Iterator[Integer[Tensor, " token"]]:
        """The rows, or the pieces of the one document.

        Raises:
            ValueError: They hold no whole numbers.
        """
        count = self.shape[0]
        step = PIECE if self.is_long else max(1, PIECE // max(1, self.shape[1]))
        for start in range(0, count, step):
            block = whole_numbers(self.part(start, min(start + step, count)), self.name)
            yield from (block,) if self.is_long else block


def in_file(file: Path) -> Array:
    """The array of a .npy file, or of a .safetensors file: its one tensor, or the one called "tokens" or "input_ids".

    Raises:
        FileFormatError: The file is damaged, or does not say which tensor holds the tokens.
        ValueError: The array has another shape than [rows, length] or [tokens].

    Example:
        >>> sum(len(document) for document in in_file(Path("tokens.npy")))  # doctest: +SKIP
        512000
    """
    return _numpy(file) if file.suffix == ".npy" else _safetensors(file)


def in_memory(array: Tensor) -> Array:
    """The array that a tensor is.

    Raises:
        ValueError: It has another shape than [rows, length] or [tokens].

    Example:
        >>> list(in_memory(torch.tensor([[1, 2], [3, 4]])))
        [tensor([1, 2]), tensor([3, 4])]
    """
    return Array("the array", tuple(array.shape), lambda start, stop: array[start:stop])


def whole_numbers(ids: Tensor, name: str) -> Integer[Tensor, "..."]:
    """The ids as they are.

    Raises:
        ValueError: They are fractions or truth values.
    """
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise ValueError(f"{name} holds {ids.dtype}; token ids are whole numbers")
    return ids


def _numpy(file: Path) -> Array:
    import numpy as np

    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise FileFormatError(f"{file} is not an array file that can be read: {error}.") from error
    return Array(str(file), mapped.shape, lambda start, stop: from_array(np.array(mapped[start:stop])))


def _safetensors(file: Path) -> Array:
    try:
        opened: Any = safe_open(file, framework="pt")
    except SafetensorError as error:
        raise FileFormatError(f"{file} is not a safetensors file: {error}.") from error
    held = list(opened.keys())
    name = held[0] if len(held) == 1 else next((name for name in NAMES if name in held), None)
    if name is None:
        raise FileFormatError(f"{file} holds {', '.join(held) or 'nothing'}; call the tokens {NAMES[0]!r}.")
    mapped = opened.get_slice(name)
    return Array(str(file), tuple(mapped.get_shape()), lambda start, stop: mapped[start:stop])
