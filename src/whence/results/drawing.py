"""What all pictures share: matplotlib loaded when it is needed, the suffixes it is asked for, and edges as lines.

Edges are blue where they add and orange where they take away, the wider the larger.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from whence.results.edges import WeightedEdge
from whence.results.keys import Node
from whence.results.sheet import NEGATIVE, POSITIVE

SUFFIXES = (".png", ".svg", ".pdf")
INK = "#4a5460"


def loaded(module: str, path: str | Path | None) -> Any:
    """A module of matplotlib's, once the path is known to be one it can save to.

    Args:
        module: Such as "matplotlib.figure".
        path: Where the picture goes; None nowhere.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is not .png, .svg or .pdf.

    Example:
        >>> loaded("matplotlib.figure", "graph.png").Figure()  # doctest: +SKIP
    """
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot save a plot as {str(path)!r}: its suffix must be one of {', '.join(SUFFIXES)}.")
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install 'whence[plot]'") from error


def draw_edges(axes: Any, edges: Sequence[WeightedEdge], places: Mapping[Node, tuple[float, float]]) -> None:
    """Lines between the places of nodes, the first edge on top.

    Args:
        axes: Where to draw.
        edges: First the strongest.
        places: Where each node stands.
    """
    largest = max((abs(edge.weight) for edge in edges), default=0.0) or 1.0
    for edge in reversed(edges):
        share = (abs(edge.weight) / largest) ** 0.5
        (x, y), (to_x, to_y) = places[edge.source], places[edge.target]
        colour = POSITIVE if edge.weight > 0 else NEGATIVE
        axes.plot([x, to_x], [y, to_y], color=colour, alpha=0.15 + 0.6 * share, linewidth=0.3 + 2 * share, zorder=1)
