"""The table that dla.py prints: rows, what they came to, and what the machine would need at least."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from dla_model import Shape
from measuring import MB


@dataclass(frozen=True)
class Row:
    """A case in the table.

    Args:
        label: what it is called there.
        side: "whence" or "peer".
        attention: kernel of the plain forward pass that it is compared with.
        case: its name in the worker.
        compared: one of whence's rows that the peer's best is held against, in cost and in numbers.
    """

    label: str
    side: str
    attention: str
    case: str
    compared: bool = False


def forward(attention: str) -> Row:
    """The plain forward pass that a group's other rows are held against."""
    return Row(f"plain forward, all logits, {attention}", "whence", attention, "forward")


@dataclass
class Measured:
    """What one row came to."""

    row: Row
    runs: list[dict[str, Any]] = field(default_factory=list)
    agreement: float | None = None  # largest difference from the peer's "best", where both have the part

    @property
    def error(self) -> str | None:
        """What the first failing run said."""
        return next((run["error"] for run in self.runs if "error" in run), None)

    def median(self, name: str) -> float | None:
        """Over the repeats; None where it could not be measured."""
        values = [run.get(name) for run in self.runs]
        return None if None in values else statistics.median(values)

    @property
    def memory(self) -> float | None:
        """Extra bytes without the returned scores, which the caller asked for. A plain forward returns logits."""
        extra, result = self.median("extra"), self.median("result")
        return None if extra is None or result is None else max(extra - result, 0.0)


def report(groups: dict[str, list[Measured]]) -> list[str]:
    """The table, in Markdown."""
    head = ["case", "CPU s", "× forward", "extra MB", "less result", "× whence: CPU", "memory", "max difference"]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for title, rows in groups.items():
        lines.append(f"| **{title}** |{' |' * (len(head) - 1)}")
        lines += [f"| {' | '.join(cells(one, rows))} |" for one in rows]
    return lines


def cells(one: Measured, rows: list[Measured]) -> list[str]:
    """One line of the table."""
    if one.error:
        return [one.row.label, one.error, *[""] * 6]
    plain = next(other for other in rows if other.row == forward(one.row.attention))
    ours = next((other for other in rows if other.row.compared), None)
    peer = one.row.side == "peer"
    return [
        one.row.label,
        number(one.median("cpu"), "{:.2f}"),
        number(ratio(one.median("cpu"), plain.median("cpu")), "{:.2f}"),
        number(one.median("extra"), "{:.0f}", MB),
        number(one.memory, "{:.0f}", MB),
        number(ratio(one.median("cpu"), ours.median("cpu")), "{:.1f}") if peer and ours else "",
        number(ratio(one.memory, ours.memory), "{:.1f}") if peer and ours else "",
        number(one.agreement, "{:.0e}") if one.agreement is not None else "",
    ]


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    """Printed, or a dash where it could not be measured."""
    return "–" if value is None else form.format(value / unit)


def ratio(one: float | None, other: float | None) -> float | None:
    """The quotient, where both are known."""
    return None if one is None or not other else one / other


def bounds(shape: Shape, fast: dict[str, float]) -> list[str]:
    """What the machine would need at least: multiplications of the forward pass, and each writer's weight read once."""
    tokens = shape.batch * shape.length
    block = 2 * (4 * shape.d_model**2 + 2 * shape.d_model * shape.d_mlp) + 4 * shape.length * shape.d_model
    blocks, logits = shape.n_layer * block * tokens, 2 * shape.d_model * shape.vocab * tokens
    weights = 4 * shape.n_layer * shape.d_model * (shape.d_model + shape.d_mlp)
    scores = 4 * shape.heads_and_neurons * tokens
    seconds = (blocks + logits / shape.length) / fast["flops"] + (weights + scores) / fast["bytes"]
    here = f"{fast['flops'] / 1e9:.0f} GFLOP/s in float32 matrix products, {fast['bytes'] / 1e9:.0f} GB/s read"
    plain = (
        f"{(blocks + logits) / 1e9:.1f} GFLOP ({logits / 1e9:.1f} of them for logits), "
        f"at least {(blocks + logits) / fast['flops']:.2f} s"
    )
    ours = (
        f"{blocks / 1e9:.1f} GFLOP, {weights / MB:.0f} MB of W_O and W_out read once, {scores / MB:.0f} MB of scores "
        f"written, at least {seconds:.2f} s"
    )
    return [f"One thread: {here}.", f"Plain forward: {plain}.", f"Heads and neurons, all positions: {ours}."]


def goals(groups: dict[str, list[Measured]]) -> list[str]:
    """The two goals beside what was measured."""
    rows = groups.get("heads and neurons, all positions", [])
    lines: list[str] = []
    for one in (one for one in rows if one.row.compared and not one.error):
        plain = next(other for other in rows if other.row == forward(one.row.attention))
        times = ratio(one.median("cpu"), plain.median("cpu")) or 0.0
        lines.append(f"Goal: heads and neurons in 1.1 × one plain forward: {times:.2f} × ({one.row.attention}).")
        for peer in (other for other in rows if other.row.side == "peer" and not other.error):
            share = ratio(one.memory, peer.memory)
            if share is not None:
                lines.append(f"Goal: 1/8 of the peer's extra memory: {share:.3f} of {peer.row.label}.")
    return lines
