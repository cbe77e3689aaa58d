"""`whence circuit stability`: how a circuit would change with other examples. Loads no model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.circuit_options import CutEdges, CutNodes, Run
from whence.cli.console import print_json, print_table
from whence.cli.options import Json, Rows
from whence.cli.show import ROWS

if TYPE_CHECKING:
    from whence.results.circuit_spread import Stability


def stability(
    run: Run,
    resamples: Annotated[int, typer.Option(min=1, help="How often examples are drawn anew.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    node_threshold: CutNodes = None,
    edge_threshold: CutEdges = None,
    rows: Rows = ROWS,
    json: Json = False,
) -> None:
    """Resample a circuit's examples: how alike the circuits are, and an interval for each effect."""
    from whence.results.circuit_data import CircuitData

    circuit = CircuitData.load(run)
    found = circuit.stability(resamples, seed, node_threshold=node_threshold, edge_threshold=edge_threshold)
    if json:
        print_json(_summary(found, rows))
    else:
        print_table(found.table(rows))


def _summary(found: "Stability", rows: int) -> dict[str, Any]:
    strongest = found.node.mean.abs().argsort(descending=True, stable=True)[:rows].tolist()
    spread = found.node
    nodes = {
        str(found.nodes[row]): {
            name: float(column[row])
            for name, column in (
                ("effect", spread.mean),
                ("low", spread.low),
                ("high", spread.high),
                ("kept", spread.kept),
            )
        }
        for row in strongest
    }
    likeness = {"nodes_jaccard": found.node_jaccard, "edges_jaccard": found.edge_jaccard}
    return likeness | {"resamples": len(spread.jaccard), "thresholds": found.thresholds, "nodes": nodes}
