"""The edges of dataset attributions as columns of a table, some rows of one block at a time.

    target, source, in_sum, target_token, source_token, then for each metric its value and `<metric>.standard_error`

All edges of which a metric is not 0, or of each target the k sources with the largest sizes of the first metric. The
stream's coordinates are no nodes and are left out; of blocks that were cut at merging there is what was kept. Cost: one
pass over the blocks, in runs of rows; two where rows are chosen. Knows nothing of files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import METRICS, SIGNED, STREAM
from whence.results.dataset_cells import cells, chunks
from whence.results.dataset_keys import node_of
from whence.results.dataset_memory import Pair
from whence.results.dataset_normalise import check, statistic_of
from whence.results.dataset_opened import Opened

SAID: dict[str, type] = {"target": str, "source": str, "in_sum": bool, "target_token": str, "source_token": str}
ERROR = ".standard_error"


@dataclass(frozen=True)
class Asked:
    """What to write.

    Args:
        opened: The store.
        metrics: Which numbers; the first one ranks.
        normalise: What they are divided by.
        k: Sources of each target, or None for all.

    Raises:
        ValueError: No metric, one that is not there, or less than one source.
    """

    opened: Opened
    metrics: tuple[str, ...]
    normalise: str
    k: int | None

    def __post_init__(self) -> None:
        if not self.metrics or (self.k is not None and self.k < 1):
            raise ValueError(f"metrics={self.metrics}, k={self.k}: at least one metric and one source.")
        for metric in self.metrics:
            check(self.opened.header, metric, self.normalise)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [*SAID, *(f"{metric}{what}" for metric in self.metrics for what in ("", ERROR))]


def counted(opened: Opened, normalise: str) -> tuple[str, ...]:
    """The metrics that a store has and that can be divided like this."""
    there = {name for pair in opened.header.pairs for name in opened.header.of(pair)}
    return tuple(metric for metric in (SIGNED if normalise == "share" else METRICS) if metric in there)


def records(asked: Asked) -> Iterator[dict[str, list[Any]]]:
    """The table, some edges of one block at a time, by column; numbers that are not defined are None.

    Args:
        asked: What to lay out.
    """
    header = asked.opened.header
    for target in header.targets:
        pairs = [pair for pair in header.pairs if pair[0] == target and target != STREAM]
        columns = sum(len(header.sources[pair[1]].ids) for pair in pairs)
        for some in chunks(len(header.targets[target].ids), columns):
            chosen = _nonzero(asked, pairs, some) if asked.k is None else _largest(asked, pairs, some, asked.k)
            for pair, place in chosen:
                if place.shape[1]:
                    yield _texts(asked.opened, pair, some, place) | _numbers(asked, pair, some, place)


def _nonzero(asked: Asked, pairs: list[Pair], some: slice) -> Iterator[tuple[Pair, Int[Tensor, "2 edge"]]]:
    for pair in pairs:
        found = [each for each in (_sizes(asked, pair, metric, some) for metric in asked.metrics) if each is not None]
        if found:
            yield pair, torch.stack(found).any(0).nonzero().T


def _largest(asked: Asked, pairs: list[Pair], some: slice, k: int) -> Iterator[tuple[Pair, Int[Tensor, "2 edge"]]]:
    """The k largest of each row over all blocks, by block; ties keep the order of sites and units."""
    sizes = {pair: _sizes(asked, pair, asked.metrics[0], some) for pair in pairs}
    there = {pair: each for pair, each in sizes.items() if each is not None}
    if not there:
        return
    every = torch.cat([*there.values()], 1)
    first = torch.zeros_like(every, dtype=torch.bool)
    first.scatter_(1, every.argsort(dim=1, descending=True, stable=True)[:, :k], True)
    parts = (first & (every > 0)).split([each.shape[1] for each in there.values()], 1)
    for pair, kept in zip(there, parts, strict=True):
        yield pair, kept.nonzero().T


def _sizes(asked: Asked, pair: Pair, metric: str, some: slice) -> Float[Tensor, "row column"] | None:
    if statistic_of(metric) not in asked.opened.header.of(pair):
        return None
    return cells(asked.opened.store, pair, metric, asked.normalise, some).values.abs().nan_to_num(0.0)


def _texts(opened: Opened, pair: Pair, some: slice, place: Int[Tensor, "2 edge"]) -> dict[str, list[Any]]:
    header = opened.header
    axes = header.targets[pair[0]].ids[some], header.sources[pair[1]].ids
    out: dict[str, list[Any]] = {"in_sum": [header.pairs[pair]] * place.shape[1]}
    for end, site, ids, at in zip(("target", "source"), pair, axes, place, strict=True):
        used, which = at.unique(return_inverse=True)
        nodes = [node_of(site, id) for id in ids[used].tolist()]
        keys, tokens = [str(node) for node in nodes], [opened.token(node) for node in nodes]
        out[end] = [keys[i] for i in which.tolist()]
        out[f"{end}_token"] = [tokens[i] for i in which.tolist()]
    return {name: out[name] for name in SAID}


def _numbers(asked: Asked, pair: Pair, some: slice, place: Int[Tensor, "2 edge"]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for metric in asked.metrics:
        there = statistic_of(metric) in asked.opened.header.of(pair)
        found = cells(asked.opened.store, pair, metric, asked.normalise, some) if there else None
        for name, each in ((metric, found and found.values), (metric + ERROR, found and found.errors)):
            values = [math.nan] * place.shape[1] if each is None else each[place[0], place[1]].tolist()
            out[name] = [None if math.isnan(value) else value for value in values]
    return out
