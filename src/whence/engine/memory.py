"""A memory budget: what it says in bytes, and rows of a graph that go to disk once it is spent.

Rows beyond the budget are written to a file without a name and mapped: the system reads them as they are used and lets
go of them when memory is short, and the file goes with the last tensor.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def bytes_of(memory: str | int | None) -> int | None:
    """A budget in bytes.

    Args:
        memory: "8GB", "512MiB", a number of bytes, or None for no budget.

    Raises:
        ValueError: another text, or a number below one.
        TypeError: neither text nor a whole number.

    Example:
        >>> bytes_of("1.5GB")
        1500000000
    """
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, int | str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"memory={memory!r}; it is a number of bytes or a text such as '8GB'")
    found = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]I?)?B?\s*", str(memory).upper())
    try:
        size = int(float(found.group(1)) * _UNITS[found.group(2) or ""]) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"memory={memory!r}; it is a positive number of bytes or a text such as '8GB' or '512MiB'")
    return size


def said(size: int) -> str:
    """A number of bytes in words.

    Example:
        >>> said(1_500_000_000)
        '1.50 GB'
    """
    unit = next((u for u in ("T", "G", "M", "K") if size >= _UNITS[u]), "")
    return f"{size / _UNITS[unit]:.2f} {unit}B" if unit else f"{size} B"


@dataclass(eq=False)
class RowStore:
    """Keeps tensors: in memory up to a limit, in a file after it.

    Args:
        limit: bytes kept in memory; None for all.
        folder: where the file goes; the system's folder for temporary files if None.
    """

    limit: int | None = None
    folder: Path | None = None
    used: int = 0
    spilled: int = 0

    def kept(self, values: Tensor) -> Tensor:
        """The same numbers, wherever they now lie."""
        size = values.numel() * values.element_size()
        if self.limit is None or self.used + size <= self.limit:
            self.used += size
            return values
        self.spilled += size
        return self._on_disk(values)

    def _on_disk(self, values: Tensor) -> Tensor:
        if not values.numel():
            return values
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="whence-rows-") as file:
            file.write(values.contiguous().view(torch.uint8).numpy().tobytes())
            file.flush()  # written rather than copied into the mapping, whose pages would count as memory in use
            flat = torch.from_file(file.name, shared=True, size=values.numel(), dtype=values.dtype)
        return flat.view(values.shape)
