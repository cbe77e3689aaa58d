"""Dataset attributions that spd saved, as a store of ours: its three layouts, told by what the file holds.

    nested   {attr, attr_abs, mean_squared_attr}[target][source]   means over tokens
    flat     source_to_component, source_to_out_residual           means over tokens, [source, target]
    sums     {regular, embed, unembed, embed_unembed}_attr[...]    raw sums, with counts and squares

Means are multiplied by their tokens, so that what is kept are raw sums, in float32, as good as they were. They are
spd's own numbers: norms are live, sums over sources are no target, and its mean square of a token sums squared
coordinates. Its targets `output` are coordinates of the residual before the unembedding, of which only `attr` says
something of tokens. Windows are unknown: there are no standard errors, and shards cannot be told apart. Cost: the file
in memory.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.errors import FileFormatError
from whence.results.dataset_axes import STREAM, Axis, Header
from whence.results.dataset_spd_layouts import Found, found_in
from whence.results.dataset_writer import write_store
from whence.results.torch_zip import read_zip

_WEIGHTING = {"nested": "both", "flat": "none", "sums": "source"}


def import_spd(path: str | Path, out: str | Path) -> Path:
    """A store of what spd saved.

    Args:
        path: Its `dataset_attributions.pt`.
        out: The store to write.

    Raises:
        FileFormatError: As `read_spd` does.

    Example:
        >>> import_spd("dataset_attributions.pt", "runs/theirs/result")  # doctest: +SKIP
        PosixPath('runs/theirs/result')
    """
    header, blocks, extra = read_spd(path)
    return write_store(out, header, blocks, extra, dtype=torch.float32)


def read_spd(path: str | Path) -> tuple[Header, Iterator[tuple[str, str, Mapping[str, Tensor]]], dict[str, Tensor]]:
    """What spd saved: header, blocks, and other tensors (the unembedding, where it is there).

    Args:
        path: Its `dataset_attributions.pt`.

    Raises:
        FileFormatError: Not such a file, one whose parts do not fit each other, or one that names more than plain data.

    Example:
        >>> header, blocks, extra = read_spd("dataset_attributions.pt")  # doctest: +SKIP
    """
    path = Path(path)
    data = read_zip(path)
    try:
        found = found_in(data)
        header = _header(path, data, found)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FileFormatError(f"{path} is no file of spd's: {type(error).__name__}, {error}.") from error
    return header, _raw(found, header.tokens), found.extra


def _raw(found: Found, tokens: int) -> Iterator[tuple[str, str, Mapping[str, Tensor]]]:
    factor = 1 if found.layout == "sums" else tokens
    for (target, source), arrays in found.blocks.items():
        yield target, source, {name: (array.double() * factor).float() for name, array in arrays.items()}


def _header(path: Path, data: Mapping[str, Any], found: Found) -> Header:
    statistics = tuple(dict.fromkeys(name for arrays in found.blocks.values() for name in arrays))
    only = {pair: tuple(arrays) for pair, arrays in found.blocks.items() if tuple(arrays) != statistics}
    provenance: dict[str, Any] = {"file": path.name, "batches": data.get("n_batches_processed")}
    if any(target == STREAM and "attr_abs" in arrays for (target, _), arrays in found.blocks.items()):
        provenance["coordinates"] = f"attr_abs and mean_squared_attr of {STREAM} are of coordinates, not of tokens"
    return Header(
        tokens=int(data["n_tokens_processed"]),
        windows=(),
        targets=_axes(found, 0, found.of_targets),
        sources=_axes(found, 1, found.of_sources),
        pairs=dict.fromkeys(found.blocks, False),
        statistics=statistics,
        only=only,
        settings={
            **{"format": "spd", "layout": found.layout, "norms": "live"},
            **{"weighting": _WEIGHTING[found.layout], "ci_threshold": data.get("ci_threshold")},
        },
        provenance=provenance,
    )


def _axes(found: Found, side: int, quantities: Mapping[str, dict[str, Float[Tensor, " line"]]]) -> dict[str, Axis]:
    """The axis of each site on one side of the pairs."""
    lines: dict[str, int] = {}
    for pair, arrays in found.blocks.items():
        for name, array in arrays.items():
            length = lines.setdefault(pair[side], array.shape[side])
            if array.ndim != 2 or array.shape[side] != length:
                raise ValueError(f"{name} of {pair[1]} -> {pair[0]} has shape {tuple(array.shape)} beside {length}")
    return {site: _axis(site, lines[site], found, quantities.get(site, {})) for site in found.order if site in lines}


def _axis(site: str, lines: int, found: Found, quantities: Mapping[str, Float[Tensor, " line"]]) -> Axis:
    ids = found.ids.get(site, torch.arange(lines))
    for name, number in {"ids": ids, **quantities}.items():
        if number.shape != (lines,):
            raise ValueError(f"{name} of {site} has shape {tuple(number.shape)} for {lines} lines")
    return Axis(site, ids, int(ids.max()) + 1 if lines else 0, quantities)
