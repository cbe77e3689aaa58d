"""What changed from one set of dataset attributions to another: another run, other data, another checkpoint.

    change = other − this        se² = se_this² + se_other²        z = change / se

Units are matched by key, so both must speak of the same components for a change to mean something; settings that differ
are listed. Blocks that were cut to their largest columns are not compared. Cost: one pass over both, in runs of rows.
It does not know of dependence between the two.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import STREAM, Axis
from whence.results.dataset_cells import Cells, cells, chunks
from whence.results.dataset_keys import node_of
from whence.results.dataset_memory import Pair
from whence.results.dataset_normalise import check, statistic_of
from whence.results.dataset_opened import Opened
from whence.results.dataset_results import Block
from whence.results.keys import Node

By = Literal["value", "z"]


@dataclass(frozen=True)
class Change:
    """One edge in both.

    Args:
        source: From which unit.
        target: To which.
        value: By how much it is larger in the other.
        standard_error: How sure that is; None where it is not known.
        before: In this.
        after: In the other.
    """

    source: Node
    target: Node
    value: float
    standard_error: float | None
    before: float
    after: float


@dataclass(frozen=True, eq=False, repr=False)
class Differences:
    """Two sets of dataset attributions, edge by edge; computed as it is asked for.

    Args:
        before: This.
        after: The other.
        metric: Which number.
        normalise: What it is divided by.

    Raises:
        ValueError: A number that one of the two lacks, or no pair of sites in both.
    """

    before: Opened
    after: Opened
    metric: str
    normalise: str

    def __post_init__(self) -> None:
        for opened in (self.before, self.after):
            check(opened.header, self.metric, self.normalise)
        if not self.pairs:
            raise ValueError("the two have no pair of sites in common, so nothing can be compared.")

    @property
    def pairs(self) -> list[Pair]:
        """The pairs (target site, source site) of which both have this metric, and every column."""
        both = self.before, self.after
        return [pair for pair in both[0].header.pairs if all(self._has(one, pair) for one in both)]

    @property
    def unmatched(self) -> list[Pair]:
        """The pairs that only one of them has."""
        return sorted({*self.before.header.pairs} ^ {*self.after.header.pairs})

    @property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """The settings that differ: their value in this, and in the other."""
        both: list[Mapping[str, Any]] = [self.before.header.settings, self.after.header.settings]
        names = dict.fromkeys(name for one in both for name in one)
        found = {name: (both[0].get(name), both[1].get(name)) for name in names}
        return {name: pair for name, pair in found.items() if pair[0] != pair[1]}

    def block(self, target: str, source: str) -> Block:
        """The changes of one pair of sites, of units that both have.

        Args:
            target: Target site.
            source: Source site.

        Raises:
            ValueError: Not a pair of both.
        """
        if (target, source) not in self.pairs:
            raise ValueError(
                f"{source} -> {target} is not in both; in both are {', '.join(map(str, self.pairs[:5]))} ..."
            )
        rows, columns = self._shared((target, source))
        parts = [
            self._cells((target, source), rows[:, some], columns) for some in chunks(rows.shape[1], columns.shape[1])
        ]
        before, after, errors = (_joined([part[i] for part in parts]) for i in range(3))
        ids = self.before.header.targets[target].ids, self.before.header.sources[source].ids
        assert before is not None
        assert after is not None
        return Block(target, source, ids[0][rows[0]], ids[1][columns[0]], after - before, errors)

    def top(self, k: int = 10, *, by: By = "value") -> list[Change]:
        """The edges that changed most, the stream's coordinates left out.

        Args:
            k: How many.
            by: Ranked by the size of the change, "value", or of it relative to its standard error, "z".

        Raises:
            ValueError: Less than one edge, another ranking, or "z" without standard errors.
        """
        if k < 1 or by not in ("value", "z"):
            raise ValueError(f"k={k}, by={by!r}: at least one edge, by 'value' or 'z'.")
        best: list[tuple[float, Change]] = []
        for pair in self.pairs:
            if pair[0] != STREAM:
                best = sorted([*best, *self._best(pair, k, by)], key=lambda one: -one[0])[:k]
        return [change for _, change in best]

    def __repr__(self) -> str:
        """One line: how much is in both, and the settings that differ."""
        differing = ", ".join(self.settings) or "none"
        return f"Differences({len(self.pairs)} blocks in both, {self.metric}; settings that differ: {differing})"

    def _has(self, opened: Opened, pair: Pair) -> bool:
        there = pair in opened.header.pairs and statistic_of(self.metric) in opened.header.of(pair)
        return there and opened.store.top(*pair) is None

    def _best(self, pair: Pair, k: int, by: By) -> Iterator[tuple[float, Change]]:
        rows, columns = self._shared(pair)
        ids = self.before.header.targets[pair[0]].ids, self.before.header.sources[pair[1]].ids
        for some in chunks(rows.shape[1], columns.shape[1]):
            before, after, errors = self._cells(pair, rows[:, some], columns)
            size = _size(after - before, errors, by)
            for place in size.flatten().argsort(descending=True, stable=True)[:k].tolist():
                i, j = divmod(place, columns.shape[1])
                if size[i, j] > 0:
                    error = None if errors is None else float(errors[i, j])
                    old, new = float(before[i, j]), float(after[i, j])
                    source = node_of(pair[1], int(ids[1][columns[0, j]]))
                    target = node_of(pair[0], int(ids[0][rows[0, some][i]]))
                    yield float(size[i, j]), Change(source, target, new - old, error, old, new)

    def _shared(self, pair: Pair) -> tuple[Int[Tensor, "2 row"], Int[Tensor, "2 column"]]:
        """The lines of the units that both have: in this, and in the other."""
        both = self.before.header, self.after.header
        return _common(*(one.targets[pair[0]] for one in both)), _common(*(one.sources[pair[1]] for one in both))

    def _cells(
        self, pair: Pair, rows: Int[Tensor, "2 row"], columns: Int[Tensor, "2 column"]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        found: list[Cells] = []
        for opened, row, column in zip((self.before, self.after), rows, columns, strict=True):
            span = slice(int(row.min()), int(row.max()) + 1) if len(row) else slice(0, 0)
            part = cells(opened.store, pair, self.metric, self.normalise, span)
            pick = [(each[row - span.start][:, column]) for each in (part.values, part.errors) if each is not None]
            found.append(Cells(pick[0], pick[1] if len(pick) > 1 else None))
        first, second = found
        if first.errors is None or second.errors is None:
            return first.values, second.values, None
        return first.values, second.values, (first.errors**2 + second.errors**2).sqrt()


def _common(first: Axis, second: Axis) -> Int[Tensor, "2 line"]:
    kept = torch.isin(first.ids, second.ids).nonzero()[:, 0]
    return torch.stack([kept, torch.searchsorted(second.ids, first.ids[kept])])


def _size(change: Float[Tensor, "row column"], errors: Tensor | None, by: By) -> Float[Tensor, "row column"]:
    if by == "z" and errors is None:
        raise ValueError("by='z' needs standard errors, which one of the two lacks. Use by='value'.")
    sized = change.abs() if by == "value" or errors is None else change.abs() / errors
    return sized.nan_to_num(0.0, posinf=torch.inf)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
