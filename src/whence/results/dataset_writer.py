"""Writing a store of dataset attributions: whole or not at all, with one block in memory at a time.

    path/result.json                               header and checksums; says which generation is the store
    path/blocks-<random>/target-{site}.safetensors the blocks of each target site
    path/blocks-<random>/axes.safetensors          ids and quantities of the sites
    path/blocks-<random>/extra.safetensors         where there are any: other tensors
    path/.lock                                     held by the one process that writes

A generation is written beside the one that is there and brought to the disk. Replacing `result.json` by a rename is the
one step that makes it the store: killed before it, the old store is whole, after it, the new one. Older generations,
and what killed writers left, are removed after that step; who has mapped their files keeps them. Cost: every block is
hashed and written once. It does not know whether the numbers are right.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from whence.results import dataset_manifest as said
from whence.results.dataset_axes import Header
from whence.results.dataset_checks import check_header
from whence.results.dataset_folder import alone, generation, refuse_others, switch
from whence.results.dataset_layout import AXES, EXTRA, Layout, Packing, Pair, Place, axes_arrays, axes_packing
from whence.results.store import sync

Names = Callable[[Pair], tuple[str, ...]]
Take = Callable[[str], Tensor]


def write_store(
    folder: str | Path,
    header: Header,
    blocks: Iterable[tuple[str, str, Mapping[str, Tensor]]],
    extra: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    top: Mapping[Pair, int] | None = None,
) -> Path:
    """The store, written whole or not at all; a store already there is replaced, and readable until it is.

    Args:
        folder: Where. Its parents are made when missing.
        header: Everything but the blocks.
        blocks: Target site, source site, and by statistic the raw sums [row of the target, column of the source], each
            pair of the header once, in any order. One is taken after another is written.
        extra: Other tensors, kept as they are.
        dtype: Of the blocks: float64, or float32 where they were no better.
        top: Pairs of which only so many columns of each row are given: they have `columns` [row, kept] (int64,
            ascending), for each statistic its values [row, kept] and, as `{statistic}.total`, sums [row] over all.

    Raises:
        ValueError: Blocks that are not those of the header: names the pair, and both shapes or types.
        FileFormatError: The folder holds something else; choose another path.
        WhenceError: Another process writes this store now.

    Example:
        >>> write_store("runs/one/result", header, [("output", "embed", {"attr": block})])  # doctest: +SKIP
        PosixPath('runs/one/result')
    """
    kept = top or {}
    names = Layout(header, dtype, kept).names
    taken = (_checked((target, source), arrays, header, names) for target, source, arrays in blocks)
    return write_pieces(folder, header, taken, extra or {}, dtype, kept)


def write_pieces(
    folder: str | Path,
    header: Header,
    blocks: Iterable[tuple[Pair, Take]],
    extra: Mapping[str, Tensor],
    dtype: torch.dtype,
    top: Mapping[Pair, int],
) -> Path:
    """As `write_store`, of blocks whose arrays are made one by one, each when it is to be written.

    Args:
        folder: Where.
        header: Everything but the blocks.
        blocks: Pair, and what makes its array of a name.
        extra: Other tensors.
        dtype: Of the blocks.
        top: Pairs of which only so many columns of each row are given.

    Raises:
        ValueError: As `write_store`.
        FileFormatError: As `write_store`.
        WhenceError: As `write_store`.
    """
    folder = Path(folder)
    check_header(header)
    layout = Layout(header, dtype, top)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_others(folder)
    with alone(folder), generation(folder) as made:
        digests = _write_blocks(made, layout, blocks)
        axes, others = axes_packing(header.targets.values(), header.sources.values()), _packed(extra)
        files = {AXES: _write_file(made / AXES, axes, axes_arrays(header))}
        if extra:
            files[EXTRA] = _write_file(made / EXTRA, others, extra)
        sync(made)
        switch(folder, made, said.to_text(said.Said(made.name, layout, axes, others, digests, files)))
    return folder


def _checked(pair: Pair, arrays: Mapping[str, Tensor], header: Header, names: Names) -> tuple[Pair, Take]:
    if pair in header.pairs and set(arrays) != set(names(pair)):
        raise ValueError(f"the block {pair[1]} -> {pair[0]} has the arrays {[*arrays]}, and must have {names(pair)}.")
    return pair, arrays.__getitem__


def _write_blocks(made: Path, layout: Layout, blocks: Iterable[tuple[Pair, Take]]) -> dict[Pair, tuple[str, ...]]:
    for target, packing in layout.targets.items():
        with (made / said.file_name(target)).open("wb") as stream:
            stream.write(packing.head)
            stream.truncate(packing.size)
    digests: dict[Pair, tuple[str, ...]] = {}
    for pair, take in blocks:
        if pair not in layout.header.pairs or pair in digests:
            what = "was given twice" if pair in digests else "is not a pair of the header"
            raise ValueError(f"the block {pair[1]} -> {pair[0]} {what}.")
        digests[pair] = _write_block(made / said.file_name(pair[0]), layout, pair, take)
    missing = [f"{source} -> {target}" for target, source in layout.header.pairs if (target, source) not in digests]
    if missing:
        raise ValueError(f"{len(missing)} blocks of the header were not given: {', '.join(missing[:8])}.")
    for target in layout.targets:
        sync(made / said.file_name(target))
    return digests


def _write_block(file: Path, layout: Layout, pair: Pair, take: Take) -> tuple[str, ...]:
    """The checksums of its arrays, in their order."""
    packing = layout.targets[pair[0]]
    with file.open("r+b") as stream:
        return tuple(
            _write_array(stream, packing.places[f"{pair[1]}/{name}"], take(name), f"{name} of {pair[1]} -> {pair[0]}")
            for name in layout.names(pair)
        )


def _write_array(stream: BinaryIO, place: Place, array: Tensor, what: str) -> str:
    """Its checksum. The array is let go on return, before the next one is made."""
    if tuple(array.shape) != place.shape or array.dtype != place.dtype:
        raise ValueError(
            f"{what} is {array.dtype} {tuple(array.shape)}, and must be {place.dtype} {place.shape}, as its sites have "
            "so many lines."
        )
    content = _bytes(array)
    stream.seek(place.start)
    stream.write(content)
    return said.digest(content)


def _write_file(file: Path, packing: Packing, arrays: Mapping[str, Tensor]) -> str:
    """The checksum of all its bytes."""
    digest = said.hasher()
    with file.open("wb") as stream:
        for part in (packing.head, *(_bytes(arrays[name]) for name, _, _ in packing.arrays)):
            stream.write(part)
            digest.update(part)
    sync(file)
    return digest.hexdigest()


def _packed(extra: Mapping[str, Tensor]) -> Packing:
    """The wider types first, so that each array begins at a multiple of its own width."""
    ordered = sorted(extra, key=lambda name: (-extra[name].dtype.itemsize, name))
    return Packing((name, tuple(extra[name].shape), extra[name].dtype) for name in ordered)


def _bytes(array: Tensor) -> memoryview:
    flat: Any = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
