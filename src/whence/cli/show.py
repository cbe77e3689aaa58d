"""`whence show`: what is in a saved result, or the edges of one of its nodes. Loads no model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.asking import shares
from whence.cli.console import print_json, print_table, stdout
from whence.cli.options import Json, Prune, Rows, Run

if TYPE_CHECKING:
    from whence.results.edges import WeightedEdge
    from whence.results.graph import Graph
    from whence.results.keys import Node

ROWS = 15


def show(
    run: Run,
    node: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Show the edges into and out of this node, such as 2.mlp.feature:17@5."),
    ] = None,
    prune: Prune = None,
    rows: Rows = ROWS,
    json: Json = False,
) -> None:
    """Show a saved graph, circuit or dataset run: what it holds, its scores; or the edges of one of its nodes."""
    from whence.cli.dataset_show import is_dataset, show_dataset
    from whence.results import manifest

    if prune is None and is_dataset(run):
        show_dataset(str(run), node, rows, json)
        return
    if prune is None and manifest.load(run).get("kind") == "circuit":
        from whence.cli.show_circuit import show_circuit

        show_circuit(run, node, rows, json)
        return
    found = opened(run, prune)
    if node is None:
        show_graph(found, rows, json)
    else:
        _show_node(found, node, rows, json)


def opened(run: Path, prune: str | None) -> "Graph":
    """The graph that was saved there, or the part of it that is asked for.

    Raises:
        FileFormatError: no graph.
    """
    from whence.results.graph import Graph

    found = Graph.load(run)
    return found if prune is None else found.prune(*shares(prune))


def show_graph(graph: "Graph", rows: int, json: bool, **more: Any) -> None:
    """The table, or one document with more in it."""
    if json:
        print_json(_summary(graph, rows) | more)
    else:
        print_table(graph.table(rows))


def _summary(graph: "Graph", rows: int) -> dict[str, Any]:
    certificate = graph.certificate
    targets = zip(graph.logit_targets, graph.logit_probabilities.tolist(), strict=True)
    return {
        "prompt": graph.prompt,
        "targets": [{"token": t.token_str, "index": t.vocab_idx, "weight": weight} for t, weight in targets],
        "nodes": len(graph.nodes),
        "edges": graph.weights.nnz,
        "replacement": graph.replacement_score(),
        "completeness": graph.completeness_score(),
        "certificate": {
            "rows": len(certificate.rows),
            "worst": certificate.worst,
            "median": certificate.median,
            "bound": certificate.bound,
        },
        "strongest": edge_lines(graph.edges(rows)),
        "provenance": graph.provenance,
    }


def edge_lines(edges: "tuple[WeightedEdge, ...]") -> list[dict[str, Any]]:
    """Edges in JSON's types."""
    return [{"source": str(e.source), "target": str(e.target), "weight": e.weight} for e in edges]


def _show_node(graph: "Graph", key: str, rows: int, json: bool) -> None:
    place = graph.nodes.find(key)
    node, influence = graph.nodes[place], float(graph.influence()[place])
    into, out_of = graph.into(node), graph.out_of(node)
    if json:
        print_json({"node": key, "influence": influence, "into": edge_lines(into), "out_of": edge_lines(out_of)})
        return
    out = stdout()
    out.print(f"{key}{word_behind(graph, node)}: {influence:.1%} of all influence flows by way of it", markup=False)
    print_edges(into, out_of, partial(word_behind, graph), rows)


def print_edges(
    into: "tuple[WeightedEdge, ...]", out_of: "tuple[WeightedEdge, ...]", word: "Callable[[Node], str]", rows: int
) -> None:
    """Two tables: what comes into a node and what goes out of it, each end with the word that it stands for."""
    _print_edges("into it, from", into, [edge.source for edge in into], word, rows)
    _print_edges("out of it, to", out_of, [edge.target for edge in out_of], word, rows)


def _print_edges(
    heading: str, edges: "tuple[WeightedEdge, ...]", ends: "list[Node]", word: "Callable[[Node], str]", rows: int
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from whence.results.sheet import number_format

    number = number_format(max((abs(edge.weight) for edge in edges), default=0.0))
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column(heading, no_wrap=True)
    out.add_column("weight", justify="right", no_wrap=True)
    for edge, end in list(zip(edges, ends, strict=True))[:rows]:
        out.add_row(Text(str(end)) + Text(word(end), "dim"), number(edge.weight))
    more = len(edges) - rows
    out.caption = f"and {more:,} more" if more > 0 else None
    out.caption_justify = "left"
    stdout().print(out)


def word_behind(graph: "Graph", node: "Node") -> str:
    """The word that a node stands for, behind its key; nothing where the key says all."""
    from whence.results.graph_sheet import label

    word = label(graph, node)
    return "" if str(node).startswith(word) else f"  {word}"
