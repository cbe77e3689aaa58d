"""The part of `whence circuit eval` that shows what was found: scores of a circuit, and of its parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.cli.console import print_json, print_table, stdout

if TYPE_CHECKING:
    from whence.results.circuit_faithfulness import CircuitScore
    from whence.results.circuit_sweep import CircuitSweep


def show_scores(scores: "list[CircuitScore]", json: bool) -> None:
    """A line a score, or one document."""
    if json:
        print_json({score.kind: _said(score) for score in scores})
        return
    for score in scores:
        stdout().print(str(score), markup=False, soft_wrap=True)


def show_sweep(sweep: "CircuitSweep", plot: Path | None, json: bool) -> None:
    """The table and the areas, or one document; and the picture."""
    if plot is not None:
        sweep.plot(plot)
    if json:
        print_json(_summary(sweep))
        return
    print_table(sweep.table())
    areas = ", ".join(f"{name} {area:.3f}" for name, area in _areas(sweep).items())
    lines = {"Areas": areas, "Picture": "" if plot is None else str(plot)}
    for name, text in lines.items():
        if text:
            stdout().print(f"{name:<9}{text}", markup=False, soft_wrap=True)


def _summary(sweep: "CircuitSweep") -> dict[str, Any]:
    rows = zip(
        sweep.sizes, sweep.thresholds or (None,) * len(sweep), sweep.faithfulness, sweep.completeness, strict=True
    )
    parts = [
        {"size": size, "threshold": threshold, one.kind: _said(one), other.kind: _said(other)}
        for size, threshold, one, other in rows
    ]
    return {"parts": parts} | _areas(sweep)


def _areas(sweep: "CircuitSweep") -> dict[str, float]:
    """The areas under faithfulness and around 1, where sizes span one: over sizes that were asked for."""
    if sweep.thresholds is not None:
        return {}
    return {"CPR": sweep.cpr(), "CMD": sweep.cmd(), "CPR log": sweep.cpr(log=True), "CMD log": sweep.cmd(log=True)}


def _said(score: "CircuitScore") -> dict[str, Any]:
    low, high = score.interval()
    numbers = {"value": score.value, "low": low, "high": high}
    return {name: number if number == number else None for name, number in numbers.items()} | {
        "nodes": score.nodes,
        "edges": score.edges,
        "active": score.active,
        "share": score.share,
        "examples": len(score.model),
        "settings": dict(score.settings),
    }
