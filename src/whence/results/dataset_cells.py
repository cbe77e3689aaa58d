"""Numbers of dataset attributions as they were asked for: raw sums read from a store, divided, with standard errors.

A row of a block, a column, or some rows at a time; nothing else is read. Cost: two statistics a number, the sum and its
square over windows. It knows nothing of rankings.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_errors import SQUARE, of_mean, of_root
from whence.results.dataset_memory import Blocks, Pair
from whence.results.dataset_normalise import divisor, statistic_of

AT_ONCE = 2**21  # numbers of one array: 16 MiB
EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class Cells:
    """Part of a block.

    Args:
        values: As asked for; nan where what they are divided by is 0.
        errors: Their standard errors; None with fewer than two windows, or where squares were not kept.
    """

    values: Float[Tensor, "row column"]
    errors: Float[Tensor, "row column"] | None


def cells(
    store: Blocks, pair: Pair, metric: str, normalise: str, rows: slice | int = EVERY, column: int | None = None
) -> Cells:
    """Part of a block.

    Args:
        store: The blocks.
        pair: Target site and source site.
        metric: Which number.
        normalise: What it is divided by.
        rows: Which rows; a number is one of them.
        column: One column, or None for all.

    Raises:
        ValueError: The pair has no such metric, or the store lacks a quantity.
    """
    header, name = store.header, statistic_of(metric)
    if name not in header.of(pair):
        raise ValueError(f"{pair[1]} -> {pair[0]} has {', '.join(header.of(pair))}; {name} was not counted there.")
    total = part(store, pair, name, rows, column)
    square = part(store, pair, name + SQUARE, rows, column) if name + SQUARE in header.of(pair) else None
    target = some(header.targets[pair[0]], slice(rows, rows + 1) if isinstance(rows, int) else rows)
    source = some(header.sources[pair[1]], EVERY if column is None else slice(column, column + 1))
    return finished(header, metric, total, square, divisor(metric, normalise, header.tokens, target, source))


def finished(
    header: Header,
    metric: str,
    total: Float[Tensor, "row column"],
    square: Float[Tensor, "row column"] | None,
    by: Float[Tensor, "_ _"],
) -> Cells:
    """Raw sums divided.

    Args:
        header: Whose tokens and windows they are of.
        metric: Of which; `rms` takes the root.
        total: Raw sums.
        square: Their squares over windows, if kept.
        by: What they are divided by.
    """
    values, errors, windows = (total / by).where(by > 0, torch.nan), None, len(header.windows)
    if square is not None and windows > 1:
        errors = (of_mean(total, square, header.tokens, windows) * (header.tokens / by)).where(by > 0, torch.nan)
    if metric == "rms":
        values = values.sqrt()
        errors = None if errors is None else of_root(errors, values)
    return Cells(values, errors)


def part(
    store: Blocks, pair: Pair, statistic: str, rows: slice | int = EVERY, column: int | None = None
) -> Float[Tensor, "row column"]:
    """Some raw numbers of one statistic, as fp64; of a block that was cut to its largest columns, 0 elsewhere."""
    if isinstance(rows, int):
        found = store.row(*pair, statistic, rows)
        return (found if column is None else found[column : column + 1]).double()[None]
    if column is not None:
        return store.column(*pair, statistic, column)[rows].double()[:, None]
    if store.top(*pair) is None:
        return store.block(*pair, statistic)[rows].double()
    lines = range(len(store.header.targets[pair[0]].ids))[rows]
    return torch.stack([store.row(*pair, statistic, line).double() for line in lines])


def some(axis: Axis, lines: slice) -> Axis:
    """Some lines of an axis."""
    return replace(axis, ids=axis.ids[lines], quantities={name: each[lines] for name, each in axis.quantities.items()})


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """The rows of a block in runs that fit in memory."""
    step = max(1, AT_ONCE // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
