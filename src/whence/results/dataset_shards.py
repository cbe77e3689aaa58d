"""Shards of dataset attributions before they are added: whether they are alike, and together what they must be.

Each refusal names the shard and what is wrong with it: the first setting that differs with both values, a site, a pair,
a run of windows. Cost: the manifests and the axes. It reads no block.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError
from whence.results.dataset_axes import Axis
from whence.results.dataset_manifest import ranges
from whence.results.dataset_store import Store, open_store

_NAME = re.compile(r"(\d+)-of-(\d+)")


def opened(folders: Sequence[str | Path], allow_missing: bool) -> tuple[list[Store], dict[str, str]]:
    """The stores in the order of their first windows, and what is wrong with those that are lost.

    Args:
        folders: Where they lie.
        allow_missing: Whether one may be lost.

    Raises:
        FileFormatError: One cannot be opened, and none may be lost; or all are.
        ValueError: No folders.
    """
    if not folders:
        raise ValueError("there are no shards to add: no folders were given.")
    found: list[Store] = []
    lost: dict[str, str] = {}
    for folder in sorted(map(Path, folders)):
        try:
            found.append(open_store(folder))
        except FileFormatError as error:
            if not allow_missing:
                raise
            lost[folder.name] = str(error)
    if not found:
        raise FileFormatError(f"none of the {len(lost)} shards can be opened: {'; '.join(lost.values())}")
    return sorted(found, key=lambda store: store.header.windows), lost


def check_alike(shards: Sequence[Store]) -> None:
    """Refuse shards that were not made from the same model, data and options.

    Raises:
        FileFormatError: Names the shard and the first thing that differs.
    """
    first = shards[0]
    for shard in shards:
        if shard.said.layout.top:
            raise FileFormatError(f"{shard.folder} keeps only its largest columns, so nothing can be added to it.")
        for what, here, there in _compared(shard, first):
            if here != there:
                raise FileFormatError(
                    f"{shard.folder} and {first.folder} cannot be added: {what} is {_short(here)} there, and "
                    f"{_short(there)} in the latter. Compute one of them again."
                )


def check_windows(shards: Sequence[Store], expected: Iterable[int] | None, allow_missing: bool) -> list[int]:
    """The windows that are missing, if they may be.

    Args:
        shards: In the order of their windows.
        expected: Those that there must be; None for any.
        allow_missing: Whether some may be missing.

    Raises:
        FileFormatError: A window is there twice, is not expected, or is missing. Names the windows and the shards.
    """
    counted = Counter(window for shard in shards for window in shard.header.windows)
    for window, times in counted.items():
        if times > 1:
            holders = [str(shard.folder) for shard in shards if window in shard.header.windows]
            raise FileFormatError(f"window {window} is in {' and in '.join(holders)}. Give each shard once.")
    if expected is None:
        return []
    wanted = set(expected)
    strange, missing = sorted(counted.keys() - wanted), sorted(wanted - counted.keys())
    if strange:
        (holder, *_) = (str(shard.folder) for shard in shards if strange[0] in shard.header.windows)
        raise FileFormatError(f"{holder} has window {strange[0]}, which is not one of the {len(wanted)} of this run.")
    if missing and not allow_missing:
        raise FileFormatError(
            f"windows {_spans(missing)} are missing: {_where(shards, missing)}. Run the shards that have them to their "
            "end, or allow missing windows."
        )
    return missing


def _compared(shard: Store, first: Store) -> Iterator[tuple[str, Any, Any]]:
    """What is to be equal, the more telling first."""
    here, there = shard.header, first.header
    yield from _settings("settings", dict(here.settings), dict(there.settings))
    for side, mine, other in (("target", here.targets, there.targets), ("source", here.sources, there.sources)):
        yield f"the list of {side} sites", list(mine), list(other)
        for site in mine:
            yield from _axis(f"{side} site {site}", mine[site], other[site])
    yield "the list of pairs", dict(here.pairs), dict(there.pairs)
    yield "the list of statistics", here.statistics, there.statistics
    yield "the statistics of some pairs", dict(here.only), dict(there.only)
    yield "the tensors beside the blocks", shard.said.extra.arrays, first.said.extra.arrays


def _settings(name: str, here: Any, there: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in sorted({*here, *there}):
            yield from _settings(f"{name}[{key!r}]", here.get(key), there.get(key))
    else:
        yield name, here, there


def _axis(name: str, here: Axis, there: Axis) -> Iterator[tuple[str, Any, Any]]:
    yield f"the size of {name}", here.size, there.size
    yield f"the number of lines of {name}", len(here.ids), len(there.ids)
    differs = (here.ids != there.ids).nonzero().reshape(-1).tolist()[:1]
    yield f"the first unit of {name} that differs", here.ids[differs].tolist(), there.ids[differs].tolist()
    yield f"the quantities of {name}", sorted(here.quantities), sorted(there.quantities)


def _where(shards: Sequence[Store], missing: Sequence[int]) -> str:
    """Which shards ought to have them, as far as names and neighbours tell."""
    numbers = {match[0]: match for match in (_NAME.fullmatch(shard.folder.name) for shard in shards) if match}
    absent = [
        f"{number:0{len(match[1])}d}-of-{match[2]}"
        for match in [*numbers.values()][:1]
        for number in range(int(match[2]))
        if f"{number:0{len(match[1])}d}-of-{match[2]}" not in numbers
    ]
    said = [f"there is no shard {', '.join(absent)}"] if absent else []
    for first, last in ranges(missing):
        before = [shard for shard in shards if shard.header.windows and shard.header.windows[-1] < first]
        after = [shard for shard in shards if shard.header.windows and shard.header.windows[0] > last]
        ends = [f"after {before[-1].folder.name}"] if before else []
        ends += [f"before {after[0].folder.name}"] if after else []
        said += [f"{_spans(range(first, last + 1))} would come {' and '.join(ends)}"] if ends else []
    return "; ".join(said) or "no shard has any"


def _spans(numbers: Iterable[int]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges(numbers))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
