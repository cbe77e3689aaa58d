"""A circuit as a picture: by slots and sites, or collapsed to kinds of sites and layers.

Edges are blue where they add and orange where they take away, the wider the larger; marks have the colour of their
effect's sign, errors are triangles. Drawn with matplotlib, for some sixty nodes; the page shows more.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from whence.results.circuit_layout import Layout, by_layer, by_site, summed
from whence.results.circuit_names import unplaced
from whence.results.circuit_page import kind_of
from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_sheet import notes, size, title
from whence.results.drawing import INK, draw_edges, loaded
from whence.results.keys import Node, index_text
from whence.results.sheet import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    import matplotlib.figure

_EDGES = 150  # more than these are one grey haze
_ACROSS = 5  # marks side by side in a cell
_MARK, _LINE, _GAP = 0.42, 0.34, 0.34  # inches: of a mark, of a line of marks, between cells
_LIFT = 0.3  # of a line: columns of a layer rise to the right, so that edges within a layer are seen
_MARKS = {"feature": "o", "error": "^", "token": "D", "output": "D", "whole": "s"}
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
_KEY = "blue: the change raises the metric, orange: it lowers it; triangles are errors"
_NAMED, _CHARACTERS_PER_INCH = 20, 16


def plot(circuit: CircuitParts, path: str | Path | None = None, positions: bool = True) -> "matplotlib.figure.Figure":
    """A figure of the nodes and the strongest edges.

    Args:
        circuit: The circuit, cut to what a picture can show.
        path: Where to save it as well: .png, .svg or .pdf.
        positions: Columns are slots, where the circuit has any; else positions are summed.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is none of those.

    Example:
        >>> figure = plot(circuit.top(40), "circuit.png")  # doctest: +SKIP
    """
    figures = loaded("matplotlib.figure", path)
    aligned = positions and bool(circuit.slots)
    shown = circuit if aligned or not circuit.slots else summed(circuit)
    layout = by_site(shown) if aligned else by_layer(shown)
    grid = _Grid(layout, 0.0 if aligned else _LIFT)
    figure = figures.Figure(figsize=(max(5.5, grid.width + 1.3), grid.height + 1.3), layout="constrained")
    axes = figure.subplots()
    places = dict(zip(shown.nodes, grid.places, strict=True))
    draw_edges(axes, shown.edges(_EDGES), places)
    _draw_nodes(axes, shown, places)
    _frame(axes, layout, grid)
    heading = [title(circuit), size(shown), *notes(circuit), _KEY]
    room = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    text = "\n".join(fill(said, room) for said in heading)
    figure.suptitle(text, x=0.02, ha="left", size=8, linespacing=1.4, parse_math=False)
    _name(figure, shown, room)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


class _Grid:
    """Columns as wide and rows as high as their fullest cell, in inches."""

    def __init__(self, layout: Layout, lift: float) -> None:
        members: dict[tuple[int, int], list[int]] = {}
        for place, cell in enumerate(layout.cells):
            members.setdefault(cell, []).append(place)
        across, lines = [1] * len(layout.columns), [1] * len(layout.rows)
        for (row, column), found in members.items():
            across[column] = max(across[column], min(len(found), _ACROSS))
            lines[row] = max(lines[row], -(-len(found) // _ACROSS))
        ends = (0, len(layout.rows) - 1)
        rises = [0.0 if row in ends else lift * (len(layout.columns) - 1) for row in range(len(layout.rows))]
        self.x, self.width = _centres([_MARK * n + _GAP for n in across])
        self.y, self.height = _centres([_LINE * n + _GAP + rise for n, rise in zip(lines, rises, strict=True)])
        self.places: list[tuple[float, float]] = [(0.0, 0.0)] * len(layout.cells)
        for (row, column), found in members.items():
            raised = self.y[row] + (lift * column - rises[row] / 2 if rises[row] else 0.0)
            for place, (x, y) in zip(found, _marks(len(found)), strict=True):
                self.places[place] = (self.x[column] + x, raised + y)


def _centres(sizes: Sequence[float]) -> tuple[list[float], float]:
    starts = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    return [start + size / 2 for start, size in zip(starts, sizes, strict=False)], starts[-1]


def _marks(count: int) -> list[tuple[float, float]]:
    """Where marks stand around the centre of their cell, line by line."""
    lines = [range(start, min(start + _ACROSS, count)) for start in range(0, count, _ACROSS)]
    return [
        (_MARK * (place - line[0] - (len(line) - 1) / 2), _LINE * ((len(lines) - 1) / 2 - at))
        for at, line in enumerate(lines)
        for place in line
    ]


def _draw_nodes(axes: Any, circuit: CircuitParts, places: dict[Node, tuple[float, float]]) -> None:
    below = {"textcoords": "offset points", "ha": "center", "va": "top", "size": 5.5, "parse_math": False}
    for node, effect in zip(circuit.nodes, circuit.effects.tolist(), strict=True):
        colour = POSITIVE if effect > 0 else NEGATIVE if effect < 0 else INK
        kind = kind_of(node)
        face = "white" if kind == "error" else colour
        axes.scatter(*places[node], s=24, marker=_MARKS[kind], facecolor=face, edgecolor=colour, linewidth=1, zorder=2)
        axes.annotate(_short(node), places[node], (0, -4.5), color=INK, bbox=_PAPER, zorder=3, **below)


def _short(node: Node) -> str:
    """What fits below a mark: its site is its row's and column's."""
    if node.name.endswith(".error"):
        return "ε"
    index = "" if node.index is None else index_text(node.index)
    return f"{index}.{node.end}" if node.end else index


def _frame(axes: Any, layout: Layout, grid: _Grid) -> None:
    columns = [repr(text)[1:-1].strip() or repr(text) for text in layout.columns]
    axes.set_xticks(grid.x, columns, parse_math=False)
    axes.set_yticks(grid.y, layout.rows)
    axes.set(xlim=(0, grid.width), ylim=(0, grid.height))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _name(figure: Any, circuit: CircuitParts, room: int) -> None:
    """The names of the nodes with the largest effects, below."""
    order = circuit.effects.abs().argsort(descending=True, stable=True)
    keys = dict.fromkeys(unplaced(node) for node in circuit.nodes.select(order))
    named = [f"{key}  {circuit.names[key]}" for key in keys if key in circuit.names][:_NAMED]
    text = "\n".join(line if len(line) <= room else f"{line[: room - 1]}…" for line in map(_one_line, named))
    if text:
        figure.supxlabel(text, x=0.02, ha="left", size=7, linespacing=1.3, parse_math=False)


def _one_line(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())
