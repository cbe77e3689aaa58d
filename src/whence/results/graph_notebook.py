"""A graph in a notebook: one self-contained table of its strongest edges."""

from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, scores, size, title
from whence.results.keys import Node
from whence.results.notebook import Row, notebook_table
from whence.results.sheet import number_format


def html(graph: ScoredGraph, k: int = 15) -> str:
    """A `<table>` of the k edges through which most influence flows, with the scores below.

    Args:
        graph: The graph.
        k: How many edges.

    Example:
        >>> html(graph)[:6]  # doctest: +SKIP
        '<table'
    """
    edges = graph.edges(k)
    largest = max((abs(edge.weight) for edge in edges), default=0.0) or 1.0
    show = number_format(largest)
    ends = ((_end(graph, edge.source), _end(graph, edge.target)) for edge in edges)
    rows = [Row(both, show(edge.weight), edge.weight / largest) for both, edge in zip(ends, edges, strict=True)]
    below = f"{size(graph)}; the {len(edges)} that carry most"
    notes = (scores(graph), str(graph.certificate))
    return notebook_table(title(graph), below, ("source", "target", "weight"), rows, notes)


def _end(graph: ScoredGraph, node: Node) -> tuple[str, str]:
    word = label(graph, node)
    return str(node), "" if str(node).startswith(word) else word
