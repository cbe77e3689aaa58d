"""The table that circuit.py prints: rows, what they came to, and the goals beside them.

A row's seconds are sums and differences of what was measured: edges of whence are a circuit less its node effects, and
a whole circuit of the peer is its node effects and its edges.
"""

import statistics
from dataclasses import dataclass, field
from typing import Any

from graph_bound import GEMM_FLOPS
from graph_table import number
from measuring import MB


@dataclass(frozen=True)
class Setting:
    """How the peer is run: pairs a batch; whether weights ask for no gradient."""

    label: str
    batch: int
    frozen: bool


PEERS = (
    Setting("default", 8, frozen=False),
    Setting("frozen", 8, frozen=True),
    Setting("frozen, one by one", 1, frozen=True),
)
OURS = "whence"
DEFAULT = PEERS[0].label
GOAL_AT = 128  # nodes kept a site


@dataclass(frozen=True)
class Row:
    """A line of the table: its worker ("whence" or a setting of the peer), and cases with the sign they count with."""

    label: str
    worker: str
    cases: tuple[tuple[str, int], ...]


def effect_rows(peers: list[str]) -> list[Row]:
    """Node effects."""
    ours = [("10 midpoints", "midpoint"), ("10 left ends", "left"), ("attribution patching", "gradient")]
    rows = [Row(f"whence, {label}", OURS, ((f"effects {rule}", 1),)) for label, rule in ours]
    return rows + [Row(f"feature-circuits, {peer}", peer, (("effects", 1),)) for peer in peers]


def edge_rows(peers: list[str], kept: int) -> list[Row]:
    """Edges alone."""
    ours = Row(OURS, OURS, ((f"circuit gradient {kept}", 1), ("effects gradient", -1)))
    return [ours, *(Row(f"feature-circuits, {peer}", peer, ((f"edges {kept}", 1),)) for peer in peers)]


def whole_rows(peers: list[str], kept: int) -> list[Row]:
    """Node effects and edges."""
    ours = Row("whence, 10 midpoints", OURS, ((f"circuit midpoint {kept}", 1),))
    return [ours, *(Row(f"feature-circuits, {peer}", peer, (("effects", 1), (f"edges {kept}", 1))) for peer in peers)]


@dataclass
class Size:
    """What was measured at one size: runs by worker and case, how far the sides agree, operations of the bounds."""

    title: str
    kept: tuple[int, ...]
    runs: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    agreement: list[str] = field(default_factory=list)

    @property
    def peers(self) -> list[str]:
        """The peer's settings that were measured."""
        return [worker for worker in self.runs if worker != OURS]

    def groups(self) -> dict[str, list[Row]]:
        """The lines of the table by title."""
        found = {"node effects": effect_rows(self.peers)}
        for kept in self.kept:
            found[f"edges, {kept} kept a site"] = edge_rows(self.peers, kept)
        for kept in self.kept:
            found[f"effects and edges, {kept} kept a site"] = whole_rows(self.peers, kept)
        return found

    def error(self, row: Row) -> str | None:
        """What the first failing run said; or that a case was not measured."""
        runs = self.runs.get(row.worker, {})
        missing = [case for case, _ in row.cases if not runs.get(case)]
        if missing:
            return "not measured"
        return next((run["error"] for case, _ in row.cases for run in runs[case] if "error" in run), None)

    def cpu(self, row: Row) -> float | None:
        """Medians with their signs."""
        if self.error(row):
            return None
        runs = self.runs[row.worker]
        return sum(sign * statistics.median(run["cpu"] for run in runs[case]) for case, sign in row.cases)

    def extra(self, row: Row) -> float | None:
        """The highest median of a row's cases that add."""
        if self.error(row):
            return None
        values = [[run["extra"] for run in self.runs[row.worker][case]] for case, sign in row.cases if sign > 0]
        return None if any(None in one for one in values) else max(statistics.median(one) for one in values)

    def ratio(self, title: str, worker: str | None) -> float | None:
        """Seconds of the peer's setting (None: of its best) over those of whence's first line of a group."""
        ours, *others = self.groups()[title]
        costs = [self.cpu(row) for row in others if row.worker == worker or (worker is None and row.worker != OURS)]
        known, mine = [cost for cost in costs if cost is not None], self.cpu(ours)
        return min(known) / mine if known and mine else None


def report(sizes: list[Size]) -> list[str]:
    """The table, in Markdown."""
    head = ["case", "CPU s", "extra MB", "× whence: CPU", "memory"]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for size in sizes:
        for title, rows in size.groups().items():
            lines.append(f"| **{size.title}: {title}** |{' |' * (len(head) - 1)}")
            lines += [f"| {' | '.join(cells(row, rows[0], size))} |" for row in rows]
    return lines


def cells(row: Row, ours: Row, size: Size) -> list[str]:
    """One line of the table."""
    error = size.error(row)
    if error:
        return [row.label, error, "", "", ""]
    cpu, extra = size.cpu(row), size.extra(row)
    beside = row.worker != OURS
    return [
        row.label,
        number(cpu, "{:.3g}"),
        number(extra, "{:.0f}", MB),
        number(over(cpu, size.cpu(ours)), "{:.1f}") if beside else "",
        number(over(extra, size.extra(ours)), "{:.1f}") if beside else "",
    ]


def over(above: float | None, below: float | None) -> float | None:
    """The quotient, where both are known and something was measured."""
    return above / below if above is not None and below is not None and below > 0 else None


def bounds(size: Size) -> list[str]:
    """Operations of the bounds, and what they take at whence's worker's own speed of matrix products."""
    products = size.runs.get(OURS, {}).get("gemm", [])
    rate = GEMM_FLOPS / statistics.median(run["cpu"] for run in products) if products else None
    return [
        f"Bound, {size.title}, {name}: {flops / 1e9:.3g} GFLOP"
        + ("." if rate is None else f", {flops / rate:.3g} s at {rate / 1e9:.0f} GFLOP/s.")
        for name, flops in size.flops.items()
    ]


def counts(size: Size) -> list[str]:
    """How many triples a site are kept, and how many backward passes that asks of the peer."""
    lines: list[str] = []
    for kept, by_site in size.counts.items():
        weight = {"embed": 0, "attn": 1, "mlp": 1, "resid": 3}
        passes = sum(weight[site.partition("_")[0]] * count for site, count in by_site.items())
        least, most = min(by_site.values()), max(by_site.values())
        lines.append(f"{size.title}, {kept} kept a site: from {least} to {most}; {passes} backward passes of the peer.")
    return lines


def goals(sizes: list[Size]) -> list[str]:
    """The goals beside what was measured."""
    lines: list[str] = []
    for size in sizes:
        for title in size.groups():
            best, default = size.ratio(title, None), size.ratio(title, DEFAULT)
            if best is None or title == "node effects":
                continue
            goal = 200 if title.startswith("edges") else 20
            aim = f" (goal: {goal})" if f"{GOAL_AT} kept" in title else ""
            faster = f"{number(default, '{:.0f}')} × faster than the default{aim}, {best:.0f} × than its best"
            lines.append(f"{size.title}, {title}: {faster}.")
    return lines
