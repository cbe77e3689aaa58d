"""A circuit as pandas DataFrames: one row a node, or one row an edge."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whence.results.circuit_files import Table, check_table
from whence.results.circuit_names import unplaced
from whence.results.circuit_parts import CircuitParts
from whence.results.keys import Node, index_text

if TYPE_CHECKING:
    import pandas


def frame(circuit: CircuitParts, what: Table) -> "pandas.DataFrame":
    """The nodes with the fields of their keys, effects and names; or the edges: source, target, weight.

    Args:
        circuit: The circuit.
        what: "nodes" or "edges".

    Raises:
        ImportError: No pandas: pip install pandas.
        ValueError: Another word for `what`.

    Example:
        >>> frame(circuit, "nodes").sort_values("effect").tail(3)["key"]  # doctest: +SKIP
    """
    check_table(what)
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas") from error
    if what == "edges":
        rows, columns, values = circuit.weights.coo()
        keys = [str(node) for node in circuit.nodes]
        ends = {"source": [keys[i] for i in columns.tolist()], "target": [keys[i] for i in rows.tolist()]}
        return pandas.DataFrame(ends | {"weight": values.numpy()})
    found = zip(circuit.nodes, circuit.effects.tolist(), circuit.explained.tolist(), strict=True)
    records = [_fields(circuit, node) | {"effect": effect, "explained": share} for node, effect, share in found]
    return pandas.DataFrame(records).astype({"layer": "Int64"})


def _fields(circuit: CircuitParts, node: Node) -> dict[str, Any]:
    return {
        "key": str(node),
        "layer": node.layer,
        "name": node.name,
        "index": None if node.index is None else index_text(node.index),
        "end": node.end,
        "slot": None if node.position is None else circuit.slots[node.position],
        "label": circuit.names.get(unplaced(node)),
    }
