"""Questions to dataset attributions about whole sites: a block, the matrix of all sites, the units of one.

    sum_abs  Σ |v|        rms  √(mean v²)        sum  Σ v        over the pairs of units of two sites

Undefined numbers (those of sources that never fire, by firing) count as 0. The stream's coordinates are no units: their
row of the matrix is in units of one coordinate, which compares within the row only. Cost: one pass over one statistic,
in runs of rows. It knows nothing of single units.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.dataset_axes import Axis
from whence.results.dataset_cells import cells, chunks
from whence.results.dataset_memory import Pair
from whence.results.dataset_normalise import check, statistic_of
from whence.results.dataset_opened import Opened
from whence.results.dataset_results import Block, SiteMatrix, Units

How = Literal["sum_abs", "rms", "sum"]
HOW: tuple[How, ...] = get_args(How)


def block(opened: Opened, pair: Pair, metric: str, normalise: str) -> Block:
    """All attributions from one site to another.

    Args:
        opened: The store.
        pair: Target site and source site.
        metric: Which number.
        normalise: What it is divided by.

    Raises:
        ValueError: No such sites, nothing leads from one to the other, or a number that is not there.
    """
    check(opened.header, metric, normalise)
    opened.sites("target", [pair[0]])
    opened.sites("source", [pair[1]])
    if pair not in opened.header.pairs:
        raise ValueError(
            f"nothing leads from {pair[1]} to {pair[0]} directly: `layer_matrix` says which pairs there are."
        )
    found = cells(opened.store, pair, metric, normalise)
    rows, columns = opened.header.targets[pair[0]].ids, opened.header.sources[pair[1]].ids
    return Block(*pair, rows, columns, found.values, found.errors)


def layer_matrix(opened: Opened, metric: str, how: str, normalise: str) -> SiteMatrix:
    """One number for every pair of sites.

    Args:
        opened: The store.
        metric: Which number.
        how: "sum_abs", "rms" or "sum".
        normalise: What it is divided by.

    Raises:
        ValueError: Another `how`, or a number that is not there.
    """
    check(opened.header, metric, normalise)
    if how not in HOW:
        raise ValueError(f"how={how!r} is none of {', '.join(HOW)}.")
    targets, sources = tuple(opened.header.targets), tuple(opened.header.sources)
    values = torch.full((len(targets), len(sources)), torch.nan, dtype=torch.float64)
    for pair in opened.header.pairs:
        if statistic_of(metric) in opened.header.of(pair):
            place = targets.index(pair[0]), sources.index(pair[1])
            values[place] = _summed(opened, pair, metric, how, normalise)
    return SiteMatrix(targets, sources, values, metric, normalise, how)


def units(opened: Opened, site: str) -> Units:
    """The units of a site with their quantities.

    Args:
        opened: The store.
        site: Of targets, of sources, or of both.

    Raises:
        ValueError: No such site.
    """
    header = opened.header
    target, source = header.targets.get(site), header.sources.get(site)
    sides = [axis for axis in (target, source) if axis is not None]
    if not sides:
        known = dict.fromkeys([*header.sources, *header.targets])
        raise ValueError(f"{site!r} is no site here; the sites are {', '.join(known)}.")
    ids = torch.cat([axis.ids for axis in sides]).unique()
    is_tokens = site in ("embed", "output")
    said = {id: opened.strings[str(id)] for id in ids.tolist() if str(id) in opened.strings} if is_tokens else {}
    return Units(site, sides[0].size, ids, _spread(target, ids), _spread(source, ids), said)


def _summed(opened: Opened, pair: Pair, metric: str, how: str, normalise: str) -> float:
    total, count = 0.0, 0
    rows, columns = len(opened.header.targets[pair[0]].ids), len(opened.header.sources[pair[1]].ids)
    for some in chunks(rows, columns):
        values = cells(opened.store, pair, metric, normalise, some).values.nan_to_num(0.0)
        count += values.numel()
        total += float((values if how == "sum" else values.abs() if how == "sum_abs" else values**2).sum())
    return math.sqrt(total / max(count, 1)) if how == "rms" else total


def _spread(axis: Axis | None, ids: Tensor) -> Mapping[str, Float[Tensor, " unit"]]:
    """An axis's quantities at these ids, nan where it has no such line."""
    if axis is None:
        return {}
    out: dict[str, Tensor] = {}
    for name, each in axis.quantities.items():
        out[name] = torch.full(ids.shape, torch.nan, dtype=torch.float64)
        out[name][torch.searchsorted(ids, axis.ids)] = each.double()
    return out
