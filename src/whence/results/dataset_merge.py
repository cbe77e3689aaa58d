"""Adding the shards of dataset attributions: raw sums of windows, in any order the same bits.

    merged = Σ over shards, in the order of their first windows, of each raw sum, in float64

Everything that a store holds is such a sum, but for tensors beside the blocks that are not named in `SUMMED`: these
must be equal in all shards. Each array is read a few megabytes at a time from every shard, with its checksum, into one
float64 sum, and written; memory is that sum, cost one reading of all shards and one writing. It needs no model, and
does not know what was summed.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.errors import FileFormatError
from whence.progress import Progress, silent
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_files import array, check_files
from whence.results.dataset_layout import COLUMNS, TOTAL, Pair
from whence.results.dataset_manifest import ranges
from whence.results.dataset_shards import check_alike, check_windows, opened
from whence.results.dataset_store import Store
from whence.results.dataset_writer import write_pieces

_logger = logging.getLogger(__name__)
SUMMED = ("gram",)  # of the tensors beside the blocks


def merge_stores(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    expected: Iterable[int] | None,
    allow_missing: bool = False,
    embed_top: int | None = None,
    extra: Mapping[str, Tensor] | None = None,
    progress: Progress = silent,
) -> Path:
    """The store that holds the sum of others.

    Args:
        folders: The shards, in any order.
        out: The store to write.
        expected: The windows that there must be, together; None takes those that there are.
        allow_missing: Go on without windows that are not there and shards that cannot be opened; they are logged, and
            kept in `provenance["missing"]`.
        embed_top: Keep only so many source tokens for each target, those of largest |attr|, and the totals over all;
            None keeps them all.
        extra: Other tensors to keep beside those of the shards.
        progress: Called with ("merge", blocks done, blocks).

    Raises:
        FileFormatError: A shard that is missing, truncated, damaged, or that differs in settings, sites, pairs or
            statistics; a window that is missing or there twice. Names the shard and what is wrong.
        ValueError: No folders, or `embed_top` below 1 or without the statistic "attr".

    Example:
        >>> merge_stores(["shards/000-of-002", "shards/001-of-002"], "result", expected=range(8))  # doctest: +SKIP
        PosixPath('result')
    """
    shards, lost = opened(folders, allow_missing)
    check_alike(shards)
    missing = check_windows(shards, expected, allow_missing)
    for shard in shards:
        check_files(shard.folder, shard.said)
    header = _header(shards, missing, lost)
    top = _top(header, embed_top)
    return write_pieces(
        out, header, _blocks(shards, header, top, progress), _extra(shards) | dict(extra or {}), torch.float64, top
    )


def _blocks(
    shards: Sequence[Store], header: Header, top: Mapping[Pair, int], progress: Progress
) -> Iterator[tuple[Pair, Callable[[str], Tensor]]]:
    for done, pair in enumerate(header.pairs, 1):
        take = partial(_summed, shards, header, pair)
        yield pair, _largest(take, header.of(pair), top[pair]).__getitem__ if pair in top else take
        progress("merge", done, len(header.pairs))


def _summed(shards: Sequence[Store], header: Header, pair: Pair, name: str) -> Float[Tensor, "row column"]:
    shape = len(header.targets[pair[0]].ids), len(header.sources[pair[1]].ids)
    total = torch.zeros(shape, dtype=torch.float64)
    flat = total.view(-1)
    for shard in shards:
        done = 0
        for chunk in array(shard.folder, shard.said, pair, name):
            part = torch.frombuffer(chunk, dtype=shard.said.layout.dtype)
            flat[done : done + len(part)] += part
            done += len(part)
    return total


def _largest(take: Callable[[str], Tensor], names: Sequence[str], count: int) -> dict[str, Tensor]:
    """The columns of largest |attr| of each row, with the totals over all."""
    columns = _columns(take("attr"), count)
    out = {COLUMNS: columns}
    for name in names:
        whole = take(name)
        out |= {name: whole.gather(1, columns), name + TOTAL: whole.sum(1)}
        del whole  # before the next one is made
    return out


def _columns(attr: Float[Tensor, "row column"], count: int) -> Int[Tensor, "row kept"]:
    """Row by row: |attr| of all rows would be a second block."""
    rows = [row.abs().topk(count).indices.sort().values for row in attr]
    return torch.stack(rows) if rows else torch.zeros(0, count, dtype=torch.int64)


def _top(header: Header, embed_top: int | None) -> dict[Pair, int]:
    """How many columns are kept of the pairs where not all are."""
    if embed_top is None:
        return {}
    if embed_top < 1:
        raise ValueError(f"embed_top={embed_top} keeps no token. Give at least 1, or None to keep them all.")
    pairs = [pair for pair in header.pairs if pair[1] == "embed" and len(header.sources["embed"].ids) > embed_top]
    for pair in pairs:
        if "attr" not in header.of(pair):
            raise ValueError(f"embed_top ranks by attr, and embed -> {pair[0]} has {', '.join(header.of(pair))} only.")
    return dict.fromkeys(pairs, embed_top)


def _header(shards: Sequence[Store], missing: Sequence[int], lost: Mapping[str, str]) -> Header:
    first, all_of = shards[0].header, [shard.header for shard in shards]
    said = [
        {"name": shard.folder.name, "windows": ranges(shard.header.windows), "tokens": shard.header.tokens}
        | ({"provenance": dict(shard.header.provenance)} if shard.header.provenance else {})
        for shard in shards
    ]
    gone = {"missing": {"windows": ranges(missing), "shards": dict(lost)}} if missing or lost else {}
    if gone:
        _logger.warning("merged without windows %s and without shards %s", ranges(missing), dict(lost))
    return replace(
        first,
        tokens=sum(header.tokens for header in all_of),
        windows=tuple(sorted(window for header in all_of for window in header.windows)),
        targets={site: _sum([header.targets[site] for header in all_of]) for site in first.targets},
        sources={site: _sum([header.sources[site] for header in all_of]) for site in first.sources},
        provenance={"shards": said} | gone,
    )


def _sum(axes: Sequence[Axis]) -> Axis:
    totals = {name: torch.zeros(len(axes[0].ids), dtype=torch.float64) for name in axes[0].quantities}
    for axis in axes:
        for name, total in totals.items():
            total += axis.quantities[name]
    return replace(axes[0], quantities=totals)


def _extra(shards: Sequence[Store]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, _, _ in shards[0].said.extra.arrays:
        for shard in shards:
            given = shard.extra(name)
            assert given is not None, "the shards were found to be alike"
            if name in SUMMED:
                out[name] = out[name] + given if name in out else given.double()
            elif not torch.equal(given, out.setdefault(name, given)):
                raise FileFormatError(f"{name} of {shard.folder} is not that of {shards[0].folder}. Compute it again.")
    return out
