"""The table that graph.py prints: rows, what they came to, and the goals beside them."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from graph_bound import GEMM_FLOPS
from measuring import MB

BATCHES = (8, 16, 32, 64, 512)
DEFAULT = 512


@dataclass(frozen=True)
class Row:
    """A case in the table: what it is called there, its side ("whence" or "peer"), its name in the worker."""

    label: str
    side: str
    case: str


OURS = Row("whence", "whence", "graph")
THEIRS = tuple(
    Row(f"circuit-tracer, batch {batch}{' (default)' if batch == DEFAULT else ''}", "peer", f"batch {batch}")
    for batch in BATCHES
)


@dataclass
class Measured:
    """What one row came to: runs, and the matrix products that its process did after each."""

    row: Row
    runs: list[dict[str, Any]] = field(default_factory=list)
    products: list[dict[str, Any]] = field(default_factory=list)
    difference: float | None = None  # largest difference from the peer's adjacency
    largest: float | None = None  # the largest weight

    @property
    def error(self) -> str | None:
        """What the first failing run said."""
        return next((run["error"] for run in self.runs if "error" in run), None)

    def median(self, name: str) -> float | None:
        """Over the repeats; None where it could not be measured."""
        values = [run.get(name) for run in self.runs]
        return None if None in values else statistics.median(values)

    def bound(self, flops: int) -> float | None:
        """Median CPU seconds over those that this many operations take at the process's own speed."""
        pairs = zip(self.runs, self.products, strict=True)
        ratios = [run["cpu"] / (flops * product["cpu"] / GEMM_FLOPS) for run, product in pairs if "cpu" in run]
        return statistics.median(ratios) if ratios else None


@dataclass
class Size:
    """One size of the table: its rows, features, and operations of the bound by part."""

    title: str
    rows: list[Measured]
    features: int
    flops: dict[str, int]

    @property
    def bound(self) -> int:
        """All operations."""
        return sum(self.flops.values())

    def row(self, row: Row) -> Measured | None:
        """One that was measured without an error."""
        return next((one for one in self.rows if one.row == row and not one.error), None)

    @property
    def best(self) -> Measured | None:
        """The peer's cheapest."""
        peers = [one for one in self.rows if one.row.side == "peer" and not one.error]
        return min(peers, key=lambda one: one.median("cpu") or 0.0, default=None)


def report(sizes: list[Size]) -> list[str]:
    """The table, in Markdown."""
    head = ["case", "CPU s", "× bound", "extra MB", "of it result", "× whence: CPU", "memory", "max difference"]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for size in sizes:
        lines.append(f"| **{size.title}: {size.features} features** |{' |' * (len(head) - 1)}")
        lines += [f"| {' | '.join(cells(one, size))} |" for one in size.rows]
    return lines


def cells(one: Measured, size: Size) -> list[str]:
    """One line of the table."""
    if one.error:
        return [one.row.label, one.error, *[""] * 6]
    ours = size.row(OURS) if one.row.side == "peer" else None
    return [
        one.row.label,
        number(one.median("cpu"), "{:.3g}"),
        number(one.bound(size.bound), "{:.2f}"),
        number(one.median("extra"), "{:.0f}", MB),
        number(one.median("result"), "{:.0f}", MB),
        number(ratio(one, ours, "cpu"), "{:.1f}") if ours else "",
        number(ratio(one, ours, "extra"), "{:.1f}") if ours else "",
        "" if one.difference is None else f"{one.difference:.0e} of {one.largest:.2g}",
    ]


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    """Printed, or a dash where it could not be measured."""
    return "–" if value is None else form.format(value / unit)


def ratio(one: Measured, other: Measured, name: str) -> float | None:
    """The quotient, where both are known."""
    above, below = one.median(name), other.median(name)
    return None if above is None or not below else above / below


def bounds(sizes: list[Size]) -> list[str]:
    """Operations of the bound."""
    return [
        f"Bound, {size.title}: {size.flops['transport'] / 1e9:.2f} GFLOP of transport"
        f" and {size.flops['dots'] / 1e9:.2f} of products with sources."
        for size in sizes
    ]


def goals(sizes: list[Size]) -> list[str]:
    """The goals beside what was measured."""
    lines: list[str] = []
    for size in sizes:
        ours, best, default = size.row(OURS), size.best, size.row(THEIRS[-1])
        if ours is None:
            continue
        lines.append(f"{size.title}: {number(ours.bound(size.bound), '{:.2f}')} × the bound (goal: at most 1.5).")
        if best is not None and default is not None:
            beside = f"its best ({best.row.label.removeprefix('circuit-tracer, ')}; goal: 4)"
            faster, fastest = (number(ratio(peer, ours, "cpu"), "{:.1f}") for peer in (best, default))
            lines.append(f"{size.title}: {faster} × faster than {beside}, {fastest} × its default (goal: 15).")
            lines.append(f"{size.title}: 1/{number(ratio(best, ours, 'extra'), '{:.1f}')} of its memory (goal: 1/3).")
    return lines
