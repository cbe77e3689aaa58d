"""A graph in a notebook: one self-contained table, no script, in the reader's own colours; every text is escaped."""

from html import escape

from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, scores, size, title
from whence.results.keys import Node
from whence.results.sheet import NEGATIVE, POSITIVE, number_format

_CELL = "padding:1px 14px 1px 0;background:transparent;text-align:left;white-space:pre"
_NUMBER = f"{_CELL};text-align:right;font-variant-numeric:tabular-nums"
_BAR = 160  # pixels of the strongest edge


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
    rows = "".join(
        f'<tr style="background:transparent">'
        f"{_end(graph, edge.source)}{_end(graph, edge.target)}"
        f'<td style="{_NUMBER}">{show(edge.weight)}</td>'
        f'<td style="{_CELL}">{_bar(edge.weight / largest)}</td></tr>'
        for edge in edges
    )
    head = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in ("source", "target"))
    note = f"{scores(graph)}<br>{escape(str(graph.certificate))}"
    return (
        '<table style="border-collapse:collapse;border:none;background:transparent;color:inherit">'
        f'<caption style="text-align:left;caption-side:top;color:inherit;padding:0 0 6px 0">'
        f"<b>{escape(title(graph))}</b><br>{size(graph)}; the {len(edges)} that carry most</caption>"
        f'<thead><tr>{head}<th scope="col" style="{_NUMBER}">weight</th><th></th></tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr style="background:transparent"><td colspan="4" style="{_CELL};opacity:.8">{note}</td></tr></tfoot>'
        "</table>"
    )


def _end(graph: ScoredGraph, node: Node) -> str:
    word = label(graph, node)
    said = "" if str(node).startswith(word) else f' <span style="opacity:.7">{escape(word)}</span>'
    return f'<td style="{_CELL}">{escape(str(node))}{said}</td>'


def _bar(share: float) -> str:
    colour = POSITIVE if share > 0 else NEGATIVE
    return f'<div style="width:{abs(share) * _BAR:.0f}px;height:.8em;background:{colour}"></div>'
