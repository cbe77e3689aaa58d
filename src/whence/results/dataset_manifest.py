"""What a store of dataset attributions says of itself in `result.json`: its header, and a checksum for each array.

    meta = {generation, dtype, tokens, windows: [[first, last], ...], statistics, settings, provenance,
            targets and sources: [{site, lines, size, quantities}, ...], extra: [{name, shape, dtype}, ...],
            pairs: [{target, source, complete, digests: "one hash an array, in their order", only?, top?}, ...]}

Shapes, and with them the sizes of all files, follow from `lines`. The ids and quantities themselves lie in a file of
their own. Cost: 33 bytes an array. It knows no blocks.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import manifest
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_checks import check_names
from whence.results.dataset_layout import AXES, DTYPES, EXTRA, Layout, Packing, Pair, axes_packing

KIND = "dataset_attributions"
_GENERATION = re.compile(r"blocks-[0-9a-f]{32}")


@dataclass(frozen=True, eq=False)
class Said:
    """A manifest that was read: the layout of its files, their checksums, and the folder they lie in.

    Its header has the lengths of its axes, but not their ids and quantities: these are all zero.
    """

    generation: str
    layout: Layout
    axes: Packing
    extra: Packing
    digests: Mapping[Pair, tuple[str, ...]]
    files: Mapping[str, str]


def to_text(said: Said) -> str:
    """The text of `result.json`.

    Raises:
        ValueError: Settings or provenance hold what JSON has no word for.
    """
    header, top = said.layout.header, said.layout.top
    pairs = [
        {"target": pair[0], "source": pair[1], "complete": complete, "digests": " ".join(said.digests[pair])}
        | ({"only": list(header.only[pair])} if pair in header.only else {})
        | ({"top": top[pair]} if pair in top else {})
        for pair, complete in header.pairs.items()
    ]
    meta = {
        **{"generation": said.generation, "dtype": _word(said.layout.dtype), "tokens": header.tokens},
        **{"windows": ranges(header.windows), "statistics": list(header.statistics)},
        **{"settings": dict(header.settings), "provenance": dict(header.provenance)},
        **{"targets": _axes(header.targets), "sources": _axes(header.sources), "pairs": pairs},
        "extra": [{"name": name, "shape": list(shape), "dtype": _word(of)} for name, shape, of in said.extra.arrays],
    }
    return manifest.to_text(KIND, meta, dict(said.files))


def read(folder: Path) -> Said:
    """The manifest of a folder.

    Raises:
        FileFormatError: No whence result, one of another kind, damaged, or one that makes no sense.
    """
    found = manifest.load(folder)
    if found.get("kind") != KIND:
        raise FileFormatError(f"{folder} holds a result of kind {found.get('kind')!r}, and {KIND!r} is wanted here.")
    try:
        return _said(found["meta"], found["files"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"{folder / manifest.NAME}"
        raise FileFormatError(f"{where} makes no sense: {type(error).__name__}, {error}. Write it again.") from error


def file_name(target: str) -> str:
    """The file with the blocks of a target site."""
    return f"target-{target.replace(':', '-')}.safetensors"


def hasher() -> "hashlib.blake2b":
    """What takes the checksum of an array: short, as a store has thousands."""
    return hashlib.blake2b(digest_size=16)


def digest(content: bytes | memoryview) -> str:
    """The checksum of an array."""
    found = hasher()
    found.update(content)
    return found.hexdigest()


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as runs, [first, last] each.

    Example:
        >>> ranges([0, 1, 2, 5])
        [[0, 2], [5, 5]]
    """
    out: list[list[int]] = []
    for number in numbers:
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return out


def _said(meta: dict[str, Any], files: dict[str, str]) -> Said:
    pairs = {(one["target"], one["source"]): one for one in meta["pairs"]}
    header = Header(
        _count(meta["tokens"]),
        tuple(window for first, last in meta["windows"] for window in range(first, last + 1)),
        _bare(meta["targets"]),
        _bare(meta["sources"]),
        {pair: bool(one["complete"]) for pair, one in pairs.items()},
        tuple(meta["statistics"]),
        {pair: tuple(one["only"]) for pair, one in pairs.items() if "only" in one},
        meta["settings"],
        meta["provenance"],
    )
    check_names(header)
    layout = Layout(header, DTYPES[meta["dtype"]], {pair: one["top"] for pair, one in pairs.items() if "top" in one})
    digests = {pair: tuple(one["digests"].split()) for pair, one in pairs.items()}
    for pair, given in digests.items():
        known = pair[0] in header.targets and pair[1] in header.sources
        if not known or len(given) != len(layout.names(pair)):
            raise ValueError(f"{pair[1]} -> {pair[0]} has no axes, or {len(given)} checksums")
    extra = Packing((one["name"], tuple(map(_count, one["shape"])), DTYPES[one["dtype"]]) for one in meta["extra"])
    if not _GENERATION.fullmatch(meta["generation"]) or files.keys() != {AXES, *([EXTRA] if extra.arrays else [])}:
        raise ValueError(f"it names {meta['generation']!r} and {sorted(files)}")
    axes = axes_packing(header.targets.values(), header.sources.values())
    return Said(meta["generation"], layout, axes, extra, digests, files)


def _axes(axes: Mapping[str, Axis]) -> list[dict[str, Any]]:
    return [
        {"site": axis.site, "lines": len(axis.ids), "size": axis.size, "quantities": list(axis.quantities)}
        for axis in axes.values()
    ]


def _bare(axes: list[dict[str, Any]]) -> dict[str, Axis]:
    return {one["site"]: _axis(one) for one in axes}


def _axis(one: dict[str, Any]) -> Axis:
    lines = _count(one["lines"])
    zero: Tensor = torch.zeros(1, dtype=torch.float64).expand(lines)  # takes no memory, however long it claims to be
    ids = torch.zeros(1, dtype=torch.int64).expand(lines)
    return Axis(one["site"], ids, _count(one["size"]), dict.fromkeys(one["quantities"], zero))


def _count(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} counts nothing")
    return number


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
