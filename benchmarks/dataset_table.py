"""The table that dataset.py prints, and the goals beside it."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from dataset_bound import bound_flops
from dataset_model import Shape
from graph_bound import GEMM_FLOPS
from graph_table import number
from measuring import MB

OURS = "whence"
TYPES = ("bfloat16", "float32")  # what the peer's passes are computed in; the first is its own choice
HEAD = ("case", "CPU s", "× bound", "extra MB", "of it result", "× whence: CPU", "memory")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        label: what it is called.
        worker: "whence", or a data type of the peer.
        case: what is asked of the worker.
        once: it takes too long for every turn, and all but small sparse sizes.
    """

    label: str
    worker: str
    case: str
    once: bool = False


ROWS = (
    Row("whence, as the peer", OURS, "as the peer"),
    Row("whence, weighted, norms held", OURS, "weighted"),
    Row("whence, default", OURS, "default"),
    Row("whence, weighted, norms held, no closed form", OURS, "pulled", once=True),
    *(Row(f"spd, {name}", name, "batch") for name in TYPES),
)
EMBEDDINGS = (Row("indexed sum", OURS, "scatter"), Row("element by element", OURS, "loop", once=True))


@dataclass
class Size:
    """What was measured at one size: runs by worker and case, and sentences on how far the sides agree."""

    name: str
    shape: Shape
    runs: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    agreement: list[str] = field(default_factory=list)

    def of(self, row: Row) -> list[dict[str, Any]]:
        """The runs of a line."""
        return self.runs.get(row.worker, {}).get(row.case, [])

    def error(self, row: Row) -> str | None:
        """What the first failing run said."""
        return next((run["error"] for run in self.of(row) if "error" in run), None)

    def median(self, row: Row, name: str) -> float | None:
        """None where nothing was measured."""
        runs = self.of(row)
        values = [run[name] for run in runs if run.get(name) is not None]
        return statistics.median(values) if values and len(values) == len(runs) else None

    def ratio(self, row: Row, beside: Row, name: str) -> float | None:
        """A line over another."""
        above, below = self.median(row, name), self.median(beside, name)
        return None if above is None or not below or below < 0 else above / below

    def bound(self, case: str) -> float | None:
        """Seconds that the multiplications of a case take at the speed of whence's worker."""
        products = self.runs.get(OURS, {}).get("gemm", [])
        if case not in ("as the peer", "weighted", "default") or not products:
            return None
        rows = 1.0 if case == "default" else self.shape.density
        rate = GEMM_FLOPS / statistics.median(run["cpu"] for run in products)
        return bound_flops(self.shape, rows, live=case == "as the peer") / rate

    def json(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return asdict(self)


def title(shape: Shape) -> str:
    """A size in words."""
    return (
        f"{shape.layers} layers, {shape.d_model} wide, {shape.components} components a matrix, "
        f"{100 * shape.density:.0f} % of importances above 0"
    )


def report(sizes: list[Size]) -> list[str]:
    """The table, in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|---{'|---:' * (len(HEAD) - 1)}|"]
    for size in sizes:
        groups = {title(size.shape): ROWS, "embeddings by token": EMBEDDINGS}
        for name, rows in groups.items():
            measured = [row for row in rows if size.of(row)]
            lines += [f"| **{name}** |{' |' * (len(HEAD) - 1)}"] if measured else []
            lines += [f"| {' | '.join(cells(size, row, rows[0]))} |" for row in measured]
    return lines


def cells(size: Size, row: Row, beside: Row) -> list[str]:
    """One line of the table; ratios are to the first line of its group."""
    error = size.error(row)
    if error is not None:
        return [row.label, error, *[""] * (len(HEAD) - 2)]
    cpu, bound = size.median(row, "cpu"), size.bound(row.case)
    ratios = [size.ratio(row, beside, name) if row is not beside else None for name in ("cpu", "extra")]
    return [
        row.label,
        number(cpu, "{:.3g}"),
        "" if bound is None or cpu is None else number(cpu / bound, "{:.1f}"),
        *(number(size.median(row, name), "{:.0f}", MB) for name in ("extra", "result")),
        *("" if ratio is None else f"{ratio:.1f}" for ratio in ratios),
    ]


def goals(size: Size) -> list[str]:
    """The goals beside what was measured."""
    lines: list[str] = []
    peers = [row for row in ROWS if row.worker in TYPES and size.median(row, "cpu") is not None]
    for ours in ROWS[:3]:
        found = {row.label: size.ratio(row, ours, "cpu") for row in peers}
        goal = 25 if size.shape.density < 0.1 and ours.case != "default" else 8
        known = {label: ratio for label, ratio in found.items() if ratio is not None}
        if known:
            said = ", ".join(f"{ratio:.1f} × {label}" for label, ratio in known.items())
            lines.append(f"{size.name}: {ours.label} is faster than the peer: {said} (goal: {goal} ×).")
    return lines
