"""`whence circuit stability`: how a circuit would change with other examples. Loads no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.circuit_options import CutEdges, CutNodes, Run
from whence.cli.console import print_json, print_table
from whence.cli.options import Json, Rows
from whence.cli.show import ROWS

if TYPE_CHECKING:
    from whence.results.circuit_spread import Spread, Stability


def stability(
    run: Run,
    resamples: Annotated[int, typer.Option(min=1, help="How often examples are drawn anew.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    node_threshold: CutNodes = None,
    edge_threshold: CutEdges = None,
    rows: Rows = ROWS,
    json: Json = False,
) -> None:
    """Resample a circuit's examples: how alike the circuits are, and an interval for each effect and edge."""
    from whence.results.circuit_data import CircuitData

    circuit = CircuitData.load(run)
    found = circuit.stability(resamples, seed, node_threshold=node_threshold, edge_threshold=edge_threshold)
    if json:
        print_json(_summary(found, rows))
    else:
        print_table(found.table(rows))


def _summary(found: "Stability", rows: int) -> dict[str, Any]:
    def rows_of(spread: "Spread", value: str, key: Callable[[int], object]) -> dict[str, dict[str, float]]:
        names = (value, "low", "high", "kept")
        return {str(key(row)): dict(zip(names, spread.of(row), strict=True)) for row in spread.strongest(rows)}

    return {
        "nodes_jaccard": found.node_jaccard,
        "edges_jaccard": found.edge_jaccard,
        "resamples": len(found.node.jaccard),
        "thresholds": found.thresholds,
        "top": found.top,
        "nodes": rows_of(found.node, "effect", found.nodes.__getitem__),
        "edges": rows_of(found.edge, "weight", found.ends),
    }
