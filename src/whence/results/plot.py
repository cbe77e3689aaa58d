"""Scores as a picture: horizontal bars in the order of the table, the ledger below, matplotlib's own file formats.

Blue adds and orange takes away on a diverging scale whose zero is white, so that colour gives a value's size as well; a
bar's edge gives the sign where the value is small, and its signed number stands beside it. The size of the picture
depends on the number of rows and targets only.
"""

from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from whence.results.drawing import loaded
from whence.results.scores import Scores
from whence.results.sheet import NEGATIVE, POSITIVE, Sheet, sheet

if TYPE_CHECKING:
    import matplotlib.figure

_EDGE_PAD = 0.12  # inches at either side, so that names do not touch the border
_ROW_INCHES, _EDGE_INCHES, _CHARACTERS_PER_INCH = 0.27, 1.5, 13
_NUMBER_ROOM = 0.17  # share of the span of values that a number beside a bar may take
_REST_COLOUR, _REST_EDGE = (
    "#dddddd",
    "#888888",
)  # the sum of many rows is no row: grey, so that it does not compete with them


def plot(scores: Scores, path: str | Path | None = None, k: int | None = None) -> "matplotlib.figure.Figure":
    """A figure of the strongest rows, `rest` and the ledger; one panel a target, up to four.

    Args:
        scores: All of them.
        path: Where to save it as well: .png, .svg or .pdf.
        k: Rows before `rest`; None is 15, or every row when `top` has chosen them before.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is none of those.

    Example:
        >>> figure = plot(scores, "parts.png")  # doctest: +SKIP
    """
    figures, colors = loaded("matplotlib.figure", path), loaded("matplotlib.colors", path)
    page = sheet(scores, k)
    size = (6.6 + 3.2 * (len(page.columns) - 1), _EDGE_INCHES + _ROW_INCHES * len(page.lines))
    figure = figures.Figure(figsize=size, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=_EDGE_PAD, h_pad=_EDGE_PAD / 2)
    shades = _shades(colors, page)
    panels = figure.subplots(1, len(page.columns), sharex=True, sharey=True, squeeze=False)[0]
    for column, axes in enumerate(panels):
        _panel(axes, page, column, shades)
    caption = fill(page.caption, int(size[0] * _CHARACTERS_PER_INCH))
    figure.suptitle(f"{page.title}\n{caption}", x=0.02, ha="left", size=9, linespacing=1.5, parse_math=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _shades(colors: Any, page: Sheet) -> Callable[[float], Any]:
    """The colour of a value, strongest for the largest of any one row: `rest`, which is many, would pale them all."""
    ramp = colors.LinearSegmentedColormap.from_list("whence", [NEGATIVE, "white", POSITIVE])
    largest = max((abs(value) for row in page.lines if not row.closing for value in row.values), default=0.0) or 1.0
    return lambda value: ramp((value / largest + 1) / 2)


def _panel(axes: Any, page: Sheet, column: int, shades: Any) -> None:
    """One target: its bars, their numbers, and its ledger as the label below."""
    values = [row.values[column] for row in page.lines]
    low, high = page.span
    colours = [_REST_COLOUR if row.closing else shades(row.values[column]) for row in page.lines]
    edges = [_REST_EDGE if row.closing else NEGATIVE if row.values[column] < 0 else POSITIVE for row in page.lines]
    axes.barh(range(len(values)), values, color=colours, edgecolor=edges, linewidth=0.8, height=0.72)
    for place, value in enumerate(values):
        offset, side = (4, "left") if value >= 0 else (-4, "right")
        style = {"textcoords": "offset points", "ha": side, "va": "center", "size": 8}
        axes.annotate(page.show(value), (value, place), (offset, 0), **style)
    axes.axvline(0, color="black", linewidth=0.8)
    names = [f"{row.reads}  {row.key}" if row.reads else row.key for row in page.lines]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_title(page.columns[column] if len(page.columns) > 1 else "", loc="left", size=9, parse_math=False)
    axes.set_xlabel(_ledger(page, column), size=8, loc="left")
    room = _NUMBER_ROOM * ((high - low) or 1.0)
    axes.set(xlim=(low - room * (low < 0), high + room), ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _ledger(page: Sheet, column: int) -> str:
    (parts, number, remainder) = (f"{name} {numbers[column]}" for name, numbers in page.ledger)
    return f"{parts}, {number}\n{remainder}, {page.share}"
