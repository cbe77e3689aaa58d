"""Questions to dataset attributions about units: what feeds one, what it feeds, and how much.

A target's row is read from every block of its site, a source's column likewise; an output token that was not counted
has a row made of the stream's coordinates. Cost: that of what is read. It knows nothing of how answers are shown.
"""

from collections.abc import Iterator

import torch

from whence.results.dataset_axes import STREAM
from whence.results.dataset_cells import Cells, cells
from whence.results.dataset_keys import node_of
from whence.results.dataset_normalise import check, statistic_of
from whence.results.dataset_opened import Opened, Side
from whence.results.dataset_output import check_made, check_token, is_made, made_columns, made_row
from whence.results.dataset_ranking import Entry, Found, Line, check_asked, strongest
from whence.results.dataset_results import Ranking
from whence.results.keys import Node


def top(
    opened: Opened,
    key: str | Node,
    side: Side,
    k: int,
    metric: str,
    sign: str,
    normalise: str,
    offset: int,
    sites: object,
) -> Ranking:
    """The strongest units on one side of a unit.

    Args:
        opened: The store.
        key: The unit: a target whose sources are ranked, or a source whose targets are.
        side: Which side is ranked.
        k: How many units.
        metric: Of which number.
        sign: "positive", "negative" or "both".
        normalise: What it is divided by.
        offset: How many to pass over.
        sites: Which sites are ranked; None: all, without the stream's coordinates.

    Raises:
        KeyError: No such unit. ValueError: A question without an answer, with what to ask instead.
    """
    check(opened.header, metric, normalise)
    check_asked(metric, sign, k, offset)
    node = Node.parse(key) if isinstance(key, str) else key
    among = opened.sites(side, sites)
    find = _sources if side == "source" else _targets
    found, ranked = strongest(find(opened, node, among, metric, normalise, sites is not None), k, offset, sign)
    entries = tuple(_entry(opened, line, place) for line, place in found)
    return Ranking(node, side, metric, normalise, sign, offset, ranked, entries)


def between(opened: Opened, source: str | Node, target: str | Node, metric: str, normalise: str) -> Found:
    """The attribution from one unit to another.

    Args:
        opened: The store.
        source: From which.
        target: To which.
        metric: Which number.
        normalise: What it is divided by.

    Raises:
        KeyError: No such unit. ValueError: Nothing leads from one to the other, or a number that is not there.
    """
    check(opened.header, metric, normalise)
    ends = [Node.parse(key) if isinstance(key, str) else key for key in (source, target)]
    site, column = opened.line(ends[0], "source")
    to, row = _row(opened, ends[1], metric, normalise)
    if (to, site) not in opened.header.pairs:
        raise ValueError(f"nothing leads from {site} to {to} directly: ask another pair, or `layer_matrix` which do.")
    found = _read(opened, ends[1], row, (to, site), metric, normalise, column)
    if opened.store.top(to, site) is not None and float(found.values) == 0:
        raise ValueError(
            f"{ends[0]} is not among the largest sources of {ends[1]}, which is all that was kept of {site}."
        )
    error = None if found.errors is None else float(found.errors)
    return Found(ends[0], ends[1], float(found.values), error, opened.header.pairs[to, site])


def has(opened: Opened, key: str | Node, side: Side) -> bool:
    """Whether a unit is stored on one side, or can be made there.

    Args:
        opened: The store.
        key: Which.
        side: Which.

    Raises:
        ValueError: No key, or one of no site.
    """
    node = Node.parse(key) if isinstance(key, str) else key
    try:
        if side == "target" and is_made(opened, node) and opened.unembedding is not None:
            check_token(opened, node)
        else:
            opened.line(node, side)
    except KeyError:
        return False
    return True


def _row(opened: Opened, node: Node, metric: str, normalise: str) -> tuple[str, int]:
    """The site of a target and its row there; of a token to be made, the stream's and no row."""
    if not is_made(opened, node):
        return opened.line(node, "target")
    check_made(opened, metric, normalise)
    check_token(opened, node)
    return STREAM, -1


def _read(
    opened: Opened, node: Node, row: int, pair: tuple[str, str], metric: str, normalise: str, column: int | None = None
) -> Cells:
    if row < 0:
        assert isinstance(node.index, int)
        return made_row(opened, node.index, pair[1], normalise, column)
    return cells(opened.store, pair, metric, normalise, row, column)


def _sources(opened: Opened, node: Node, among: list[str], metric: str, normalise: str, named: bool) -> Iterator[Line]:
    to, row = _row(opened, node, metric, normalise)
    pairs = _counted(opened, [(to, site) for site in among], metric, named)
    for pair in pairs:
        found = _read(opened, node, row, pair, metric, normalise)
        errors = None if found.errors is None else found.errors[0]
        ids = opened.header.sources[pair[1]].ids
        yield Line(pair[1], ids, found.values[0], errors, opened.header.pairs[pair])


def _targets(opened: Opened, node: Node, among: list[str], metric: str, normalise: str, named: bool) -> Iterator[Line]:
    site, column = opened.line(node, "source")
    if not named:
        among = [to for to in among if to != STREAM]
    for pair in _counted(opened, [(to, site) for to in among], metric, named):
        in_sum = opened.header.pairs[pair]
        if pair[0] == STREAM:
            check_made(opened, metric, normalise)
            for start, made in made_columns(opened, site, normalise, column):
                ids = torch.arange(start, start + len(made.values))
                yield Line("output", ids, made.values[:, 0], None, in_sum)
            continue
        found = cells(opened.store, pair, metric, normalise, column=column)
        errors = None if found.errors is None else found.errors[:, 0]
        yield Line(pair[0], opened.header.targets[pair[0]].ids, found.values[:, 0], errors, in_sum)


def _counted(opened: Opened, pairs: list[tuple[str, str]], metric: str, named: bool) -> list[tuple[str, str]]:
    """The pairs that have a block; those of sites asked for by name must have the metric, others may lack it."""
    there = [pair for pair in pairs if pair in opened.header.pairs]
    return there if named else [pair for pair in there if statistic_of(metric) in opened.header.of(pair)]


def _entry(opened: Opened, line: Line, place: int) -> Entry:
    node = node_of(line.site, int(line.ids[place]))
    error = None if line.errors is None else float(line.errors[place])
    return Entry(node, float(line.values[place]), error, opened.token(node), line.site, line.in_sum)
