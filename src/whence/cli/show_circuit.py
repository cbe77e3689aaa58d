"""The part of `whence show` for circuits: nodes with the largest effects, or the edges of one node. Loads no model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.cli.console import print_json, print_table, stdout
from whence.cli.show import edge_lines, print_edges

if TYPE_CHECKING:
    from whence.results.circuit_data import CircuitData
    from whence.results.keys import Node


def show_circuit(run: Path, key: str | None, rows: int, json: bool) -> None:
    """The table of a saved circuit, or the edges of one of its nodes; or the same as one document.

    Raises:
        FileFormatError: no circuit.
    """
    from whence.results.circuit_data import CircuitData

    circuit = CircuitData.load(run)
    if key is not None:
        _show_node(circuit, key, rows, json)
    else:
        present(circuit, rows, json)


def present(circuit: "CircuitData", rows: int, json: bool, **more: Any) -> None:
    """The table, or one document with more in it."""
    if json:
        print_json(_summary(circuit, rows) | more)
    else:
        print_table(circuit.table(rows))


def _summary(circuit: "CircuitData", rows: int) -> dict[str, Any]:
    strongest = circuit.top(rows)
    effects = zip(strongest.nodes, strongest.effects.tolist(), strict=True)
    return {
        "nodes": len(circuit.nodes) - 1,
        "errors": circuit.errors,
        "edges": circuit.weights.nnz,
        "examples": circuit.examples,
        "slots": circuit.slots,
        "total": circuit.total,
        "effects": {str(node): effect for node, effect in effects},
        "strongest": edge_lines(circuit.edges(rows)),
        "provenance": circuit.provenance,
    }


def _show_node(circuit: "CircuitData", key: str, rows: int, json: bool) -> None:
    from whence.results.circuit_sheet import word

    def behind(node: "Node") -> str:
        return f"  {word(circuit, node)}".rstrip()

    place = circuit.nodes.find(key)
    node, effect = circuit.nodes[place], float(circuit.effects[place])
    into, out_of = circuit.into(node), circuit.out_of(node)
    if json:
        print_json({"node": key, "effect": effect, "into": edge_lines(into), "out_of": edge_lines(out_of)})
        return
    stdout().print(f"{key}{behind(node)}: effect {effect:+.4g}", markup=False)
    print_edges(into, out_of, behind, rows)
