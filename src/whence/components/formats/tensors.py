"""A safetensors file of one dictionary: its small tensors read, its matrices left where they are."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from whence.components.lazy import LazyRows, open_tensors, widened
from whence.errors import FileFormatError

_TRANSPOSED = (slice(None),)


class TensorFile:
    """The tensors of a safetensors file, by name.

    Args:
        file: The file.

    Raises:
        FileFormatError: It is no safetensors file.
    """

    def __init__(self, file: Path) -> None:
        self.file, self._stored = file, open_tensors(file)
        self.names = frozenset(self._stored.keys())

    def vector(self, name: str) -> Tensor:
        """A small tensor, read now.

        Raises:
            FileFormatError: The file has no such tensor; names those it has.
        """
        self._check(name)
        return widened(self._stored.get_tensor(name))

    def optional(self, name: str) -> Tensor | None:
        """A small tensor that need not be there."""
        return self.vector(name) if name in self.names else None

    def matrix(self, name: str, *, transposed: bool = False, first: int | None = None) -> LazyRows:
        """A matrix, read by rows when they are asked for.

        Args:
            name: Its name.
            transposed: Whether the file keeps rows as columns.
            first: Where what is read starts in a second axis that has more than that; None for a matrix without one.

        Raises:
            FileFormatError: The file has no such tensor.
        """
        self._check(name)
        after = () if first is None else (slice(first, None),)
        return LazyRows(self.file, name, _TRANSPOSED if transposed else (), after)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise FileFormatError(f"{self.file} has no tensor {name!r}; it has {', '.join(sorted(self.names))}.")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        FileFormatError: It does not.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{file} holds {type(found).__name__}, not an object.")
    return found
