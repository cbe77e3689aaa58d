"""Graphs in a terminal: one line for `repr`, and a table of the edges through which most influence flows."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, nodes, scores, size, title
from whence.results.keys import Node
from whence.results.sheet import NEGATIVE, POSITIVE, number_format

_WIDTH = 120


def line(graph: ScoredGraph) -> str:
    """A graph in one line; the weights of a file are not read for it.

    Args:
        graph: The graph.

    Example:
        >>> line(graph)  # doctest: +SKIP
        "Graph('The capital of Texas is → Austin (0.63)': 61 nodes of 3,714)"
    """
    return f"Graph({title(graph)!r}: {nodes(graph)})"


def table(graph: ScoredGraph, k: int = 15) -> Table:
    """The k strongest edges with their ends in words, and the scores below.

    Args:
        graph: The graph.
        k: How many edges.

    Example:
        >>> rich.print(table(graph))  # doctest: +SKIP
    """
    edges = graph.edges(k)
    show = number_format(max((abs(edge.weight) for edge in edges), default=0.0))
    heading = Text(title(graph), "bold") + Text(f"\n{size(graph)}; the {len(edges)} that carry most", "not bold dim")
    note = Text(f"{scores(graph)}\n{graph.certificate}", "dim")
    out = Table(title=heading, caption=note, box=box.SIMPLE_HEAD, pad_edge=False)
    out.title_justify = out.caption_justify = "left"
    for name in ("source", "target"):
        out.add_column(name, no_wrap=True)
    out.add_column("weight", justify="right", no_wrap=True)
    for edge in edges:
        colour = POSITIVE if edge.weight > 0 else NEGATIVE
        out.add_row(_named(graph, edge.source), _named(graph, edge.target), Text(show(edge.weight), colour))
    return out


def text(graph: ScoredGraph) -> str:
    """The table as plain text.

    Args:
        graph: The graph.

    Example:
        >>> print(text(graph))  # doctest: +SKIP
    """
    return plain(table(graph))


def plain(shown: Table) -> str:
    """A table as lines of text, without colours.

    Args:
        shown: The table.
    """
    stream = StringIO()
    Console(file=stream, width=_WIDTH, color_system=None).print(shown)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _named(graph: ScoredGraph, node: Node) -> Text:
    """The key, and the word it stands for where it has one."""
    word = label(graph, node)
    return Text(str(node)) + Text("" if str(node).startswith(word) else f"  {word}", "dim")
