"""Reading a store of dataset attributions: blocks mapped into memory, so that a query touches the pages it needs.

Opening reads `result.json` and maps every file, checking its size; it reads no block. Mapped files outlive their
removal: a store that is replaced while it is open stays what it was. Checksums are taken by `verify`, block by block
and without mapping. Mappings are private: writing into a block that was given changes no file. Cost of opening: the
manifest, a few hundred kilobytes for thousands of arrays. It does not know what the numbers mean.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import FileFormatError
from whence.progress import Progress, silent
from whence.results import dataset_manifest as said
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_files import array, check_files, maps
from whence.results.dataset_layout import AXES, COLUMNS, EXTRA, TOTAL

_ATTEMPTS = 100  # to open a store that is replaced at the same time


class Store:
    """A store of dataset attributions, open.

    Args:
        folder: The folder that has its `result.json`.
        found: What that says.

    Raises:
        FileFormatError: A file is missing, or is shorter or longer than it must be.
    """

    def __init__(self, folder: Path, found: said.Said) -> None:
        self.folder, self.said = folder, found
        self._maps = maps(folder, found)

    def __repr__(self) -> str:
        header = self.said.layout.header
        return f"Store({str(self.folder)!r}: {len(header.pairs)} blocks of {header.tokens} tokens)"

    @property
    def header(self) -> Header:
        """Everything but the blocks; the ids and quantities of its axes are mapped."""
        return self._header

    @cached_property
    def _header(self) -> Header:
        bare = self.said.layout.header
        return replace(bare, targets=self._axes("target", bare.targets), sources=self._axes("source", bare.sources))

    def has(self, target: str, source: str) -> bool:
        """Whether there is a block from one site to the other."""
        return (target, source) in self.said.layout.header.pairs

    def top(self, target: str, source: str) -> int | None:
        """How many columns of each row were kept of this block; None where all were."""
        return self.said.layout.top.get((target, source))

    def block(self, target: str, source: str, statistic: str) -> Float[Tensor, "row column"]:
        """A whole block, mapped.

        Raises:
            ValueError: No such block or statistic, or one of which only the largest columns of each row were kept.
        """
        if self.top(target, source) is not None:
            raise ValueError(_kept(target, source, "whole block"))
        return self._array(target, source, statistic)

    def row(self, target: str, source: str, statistic: str, i: int) -> Float[Tensor, " column"]:
        """The row of one target; where only the largest columns were kept, the others are 0 here.

        Raises:
            ValueError: No such block or statistic.
        """
        values = self._array(target, source, statistic)[i]
        if self.top(target, source) is None:
            return values
        whole = values.new_zeros(len(self.said.layout.header.sources[source].ids))
        return whole.index_copy(0, self._array(target, source, COLUMNS)[i], values)

    def column(self, target: str, source: str, statistic: str, j: int) -> Float[Tensor, " row"]:
        """The column of one source.

        Raises:
            ValueError: As `block` does.
        """
        return self.block(target, source, statistic)[:, j]

    def totals(self, target: str, source: str, statistic: str) -> Float[Tensor, " row"]:
        """The sum of each row over all columns, kept or not: read where only the largest were kept, else summed.

        Raises:
            ValueError: No such block or statistic.
        """
        if self.top(target, source) is None:
            return self.block(target, source, statistic).sum(1, dtype=torch.float64)
        return self._array(target, source, statistic + TOTAL)

    def extra(self, name: str) -> Tensor | None:
        """A tensor kept beside the blocks, mapped; None if there is none of this name."""
        packing = self.said.extra
        return packing.view(self._maps[EXTRA], name) if name in packing.places else None

    def verify(self, progress: Progress = silent) -> None:
        """Read everything, and compare it with its checksums.

        Raises:
            FileFormatError: Something is damaged, or the store was replaced since it was opened; names the file.
        """
        check_files(self.folder, self.said)
        for done, pair in enumerate(self.said.digests, 1):
            for name in self.said.layout.names(pair):
                deque(array(self.folder, self.said, pair, name), maxlen=0)
            progress("verify", done, len(self.said.digests))

    def _axes(self, side: str, bare: Mapping[str, Axis]) -> dict[str, Axis]:
        def view(site: str, name: str) -> Tensor:
            return self.said.axes.view(self._maps[AXES], f"{side}/{site}/{name}")

        return {
            site: Axis(site, view(site, "ids"), axis.size, {name: view(site, name) for name in axis.quantities})
            for site, axis in bare.items()
        }

    def _array(self, target: str, source: str, name: str) -> Tensor:
        layout, pair = self.said.layout, (target, source)
        if not self.has(target, source):
            sources = [one[1] for one in layout.header.pairs if one[0] == target]
            raise ValueError(f"{self.folder} has no block {source} -> {target}; {target} has {sources}.")
        if name not in layout.names(pair):
            raise ValueError(f"{source} -> {target} has no {name!r}; it has {', '.join(layout.names(pair))}.")
        return layout.targets[target].view(self._maps[target], f"{source}/{name}")


def open_store(folder: str | Path) -> Store:
    """The store in a folder; opened again at once if another process replaces it meanwhile.

    Args:
        folder: The folder that has its `result.json`.

    Raises:
        FileFormatError: No store, of a newer version, or one of its files is missing, truncated or too long.

    Example:
        >>> open_store("runs/one/result").block("output", "embed", "attr")  # doctest: +SKIP
        tensor([[0.5, 0.1]], dtype=torch.float64)
    """
    folder = Path(folder)
    for _ in range(_ATTEMPTS):
        found = said.read(folder)
        try:
            return Store(folder, found)
        except FileFormatError:
            if said.read(folder).generation == found.generation:
                raise
    raise FileFormatError(f"{folder} was replaced {_ATTEMPTS} times while it was being opened. Wait for its writer.")


def _kept(target: str, source: str, what: str) -> str:
    return (
        f"of {source} -> {target} only the largest columns of each row were kept, so there is no {what}. Ask for rows, "
        "or merge the shards again without a limit."
    )
