"""A graph as a picture: tokens from left to right, layers from bottom to top.

Drawn with matplotlib, for some fifty nodes; the page shows more.
"""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from whence.results.drawing import INK, draw_edges, loaded
from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, scores, size, title
from whence.results.keys import Node
from whence.results.kinds import Kind, kind_of

if TYPE_CHECKING:
    import matplotlib.figure

_EDGES = 150  # more than these are one grey haze
_STACKED = 0.32  # of a row: outputs stand above one another, each beside its word
_MARKS: dict[Kind, str] = {
    "feature": "o",
    "error": "s",
    "rest": "s",
    "token": "D",
    "constant": "^",
    "output": "D",
}
_CHARACTERS = 110


def plot(graph: ScoredGraph, path: str | Path | None = None) -> "matplotlib.figure.Figure":
    """A figure of the nodes and of the edges through which most influence flows.

    Args:
        graph: The graph, pruned to what a picture can show.
        path: Where to save it as well: .png, .svg or .pdf.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is none of those.

    Example:
        >>> figure = plot(graph.prune(), "graph.png")  # doctest: +SKIP
    """
    figures = loaded("matplotlib.figure", path)
    places = _places(graph)
    layers = int(graph.nodes.layer.max()) + 1 if len(graph.nodes) else 0
    columns = len(graph.token_texts)
    figure = figures.Figure(figsize=(max(6.4, 1.1 * columns + 1.5), 2.2 + 0.6 * layers), layout="constrained")
    axes = figure.subplots()
    draw_edges(axes, graph.edges(_EDGES), places)
    _draw_nodes(axes, graph, places)
    _frame(axes, graph, layers)
    heading = fill(title(graph), _CHARACTERS)
    note = f"{size(graph)}; {scores(graph)}\n{graph.certificate}"
    figure.suptitle(f"{heading}\n{note}", x=0.02, ha="left", size=9, linespacing=1.5, parse_math=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _places(graph: ScoredGraph) -> dict[Node, tuple[float, float]]:
    """Where each node stands: its token's column and its layer's row, side by side with its neighbours."""
    outputs = int(graph.nodes.layer.max()) + 2 if len(graph.nodes) else 1
    cells: dict[tuple[int, int], list[Node]] = {}
    for node in graph.nodes:
        row = outputs if node.name == "output" else 0 if node.layer is None else node.layer + 1
        cells.setdefault((-1 if node.position is None else node.position, row), []).append(node)
    places: dict[Node, tuple[float, float]] = {}
    for (column, row), members in cells.items():
        for place, node in enumerate(members):
            beside, above = (place + 1) / (len(members) + 1) - 0.5, _STACKED * (len(members) - 1 - place)
            places[node] = (float(column), row + above) if row == outputs else (column + beside, float(row))
    return places


def _draw_nodes(axes: Any, graph: ScoredGraph, places: dict[Node, tuple[float, float]]) -> None:
    for node, kind in zip(graph.nodes, kind_of(graph.nodes), strict=True):
        x, y = places[node]
        face = "white" if kind in ("error", "rest") else INK
        axes.scatter([x], [y], s=26, marker=_MARKS[kind], facecolor=face, edgecolor=INK, linewidth=1, zorder=2)
        if kind == "output":
            style = {"textcoords": "offset points", "ha": "right", "va": "center", "size": 8, "parse_math": False}
            axes.annotate(label(graph, node), (x, y), (-7, 0), **style)


def _frame(axes: Any, graph: ScoredGraph, layers: int) -> None:
    tokens = [repr(text)[1:-1].strip() or repr(text) for text in graph.token_texts]
    anywhere = bool((graph.nodes.position < 0).any())
    names = (["any"] if anywhere else []) + tokens
    first = -1 if anywhere else 0
    axes.set_xticks(range(first, len(tokens)), names, parse_math=False)
    axes.set_yticks(range(layers + 2), ["tokens", *(f"layer {layer}" for layer in range(layers)), "outputs"])
    axes.set(xlim=(first - 0.6, len(tokens) - 0.4), ylim=(-0.6, layers + 1.4 + _STACKED * len(graph.logit_targets)))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
