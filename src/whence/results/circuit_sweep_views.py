"""A sweep as a table in a terminal, a DataFrame, and a picture.

The picture has the number of nodes (or edges) kept on a logarithmic axis, faithfulness with the 95 % interval of its
examples as a band, and completeness. Cost: one bootstrap a part. Knows nothing of models.
"""

from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from whence.results.circuit_sweep import CircuitSweep
from whence.results.drawing import INK, loaded
from whence.results.sheet import NEGATIVE, POSITIVE
from whence.results.words import counted

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

_SIZE, _CHARACTERS = (6.4, 4.0), 92


def table(sweep: CircuitSweep) -> Table:
    """One row a part.

    Args:
        sweep: The sweep.

    Example:
        >>> rich.print(table(sweep))  # doctest: +SKIP
    """
    out = Table(title=Text("Parts of a circuit", "bold"), caption=Text(_said(sweep), "dim"), box=box.SIMPLE_HEAD)
    out.pad_edge, out.title_justify, out.caption_justify = False, "left", "left"
    rows = [_shown(row) for row in _rows(sweep)]
    for name in rows[0]:
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        out.add_row(*row.values())
    return out


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as text; a threshold says the size."""
    shown = {name: f"{row[name]:.3g}" for name in ("threshold",) if name in row} or {"size": f"{row['size']:.3g}"}
    shown["nodes"] = f"{row['nodes']:,}"
    shown |= {"edges": f"{row['edges']:,}"} if "edges" in row else {"of active": f"{row['of_active']:.1%}"}
    shown["faithfulness"] = f"{row['faithfulness']:.3f}"
    return shown | {"95 %": f"{row['from']:.3f} to {row['to']:.3f}", "completeness": f"{row['completeness']:.3f}"}


def frame(sweep: CircuitSweep) -> "pandas.DataFrame":
    """The rows of the table as a DataFrame.

    Args:
        sweep: The sweep.

    Raises:
        ImportError: No pandas: pip install pandas.

    Example:
        >>> frame(sweep)["nodes"].max()  # doctest: +SKIP
        40
    """
    try:
        pandas: Any = import_module("pandas")
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas") from error
    return pandas.DataFrame(_rows(sweep))


def plot(sweep: CircuitSweep, path: str | Path | None = None) -> "matplotlib.figure.Figure":
    """A figure of faithfulness and completeness.

    Args:
        sweep: The sweep.
        path: Where to save it as well: .png, .svg or .pdf.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is none of those.

    Example:
        >>> figure = plot(sweep, "sweep.png")  # doctest: +SKIP
    """
    figure = loaded("matplotlib.figure", path).Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    axes = figure.subplots()
    rows = sorted(_rows(sweep), key=lambda row: row[sweep.by])
    kept = [row[sweep.by] for row in rows]
    for level in (0, 1):
        axes.axhline(level, color=INK, linewidth=0.6, linestyle=":")
    axes.fill_between(kept, [row["from"] for row in rows], [row["to"] for row in rows], color=POSITIVE, alpha=0.15)
    for what, colour, marker in (("faithfulness", POSITIVE, "o"), ("completeness", NEGATIVE, "s")):
        axes.plot(kept, [row[what] for row in rows], color=colour, marker=marker, markersize=4, linewidth=1.4)
        style = {"textcoords": "offset points", "color": colour, "va": "center", "size": 9}
        axes.annotate(what, (kept[-1], rows[-1][what]), (8, 7), **style)  # above the lines at 0 and 1
    _frame(axes, sweep, kept)
    figure.suptitle(fill(_said(sweep), _CHARACTERS), x=0.02, ha="left", size=8, linespacing=1.4, parse_math=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _frame(axes: Any, sweep: CircuitSweep, kept: list[int]) -> None:
    axes.set_xscale("symlog", linthresh=1) if 0 in kept else axes.set_xscale("log")
    low, high = min(kept) / 1.15, max(2, *kept) * 1.15
    ticks = [0, *(digit * 10**power for power in range(len(str(kept[-1]))) for digit in (1, 2, 5))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
    axes.set_xlabel(f"{sweep.by} kept", size=9)
    axes.set_ylabel("share of the metric", size=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _rows(sweep: CircuitSweep) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    thresholds = sweep.thresholds or (None,) * len(sweep)
    parts = zip(sweep.sizes, thresholds, sweep.faithfulness, sweep.completeness, strict=True)
    for size, limit, faithful, complete in parts:
        low, high = faithful.interval()
        row: dict[str, Any] = {} if limit is None else {"threshold": limit}
        row |= {"size": size, "nodes": faithful.nodes}
        row |= {} if faithful.edges is None else {"edges": faithful.edges}
        row |= {"of_active": faithful.share, "faithfulness": faithful.value, "from": low, "to": high}
        rows.append(row | {"completeness": complete.value})
    return rows


def _said(sweep: CircuitSweep) -> str:
    one, found = sweep.faithfulness[0], sweep.faithfulness[0].settings
    how = ", ".join(f"{name} {found[name]}" for name in ("ablation", "errors") if name in found)
    examples, active = counted(len(one.model), "example"), counted(one.active, "active unit")
    return f"{examples}{', ' * bool(how)}{how}; {active}; 95 % intervals"
