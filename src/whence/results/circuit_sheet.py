"""What every picture of a circuit says in words, whatever draws it: names of nodes, the title and the lines below."""

from collections.abc import Mapping
from pathlib import Path

from whence.results.circuit_names import unplaced
from whence.results.circuit_parts import CircuitParts
from whence.results.keys import Node
from whence.results.sheet import number_format
from whence.results.words import counted

_SAID = (int, float, str)  # what of a report fits on a line


def title(circuit: CircuitParts) -> str:
    """The metric and the model, where the circuit knows them.

    Args:
        circuit: The circuit.

    Example:
        >>> title(circuit)  # doctest: +SKIP
        'Circuit of logit difference in gpt2'
    """
    metric, model = (circuit.provenance.get(name) for name in ("metric", "model"))
    short = Path(model).name if model and Path(model).is_absolute() else model
    return f"Circuit{f' of {metric}' if metric else ''}{f' in {short}' if short else ''}"


def size(circuit: CircuitParts) -> str:
    """How many nodes, errors among them, edges and examples there are; the edges of a file are read for it."""
    return f"{nodes(circuit)}, {counted(circuit.weights.nnz, 'edge')}"


def nodes(circuit: CircuitParts) -> str:
    """How many nodes there are, and how many of them are errors."""
    return f"{counted(len(circuit.nodes) - 1, 'node')} ({counted(circuit.errors, 'error')})"


def notes(circuit: CircuitParts) -> tuple[str, ...]:
    """The total effect, and what the maker of the circuit reported."""
    kind = "difference of means over {} in all" if "difference" in circuit.provenance else "mean over {}"
    over = f", {kind.format(counted(circuit.examples, 'example'))}" if circuit.examples else ""
    first = f"total effect {number_format(abs(circuit.total))(circuit.total)}{over}"
    report = circuit.provenance.get("report")
    found = report.items() if isinstance(report, Mapping) else ()
    said = [f"{str(name).replace('_', ' ')} {_shown(value)}" for name, value in found if isinstance(value, _SAID)]
    return (first, "; ".join(said)) if said else (first,)


def label(circuit: CircuitParts, node: Node) -> str:
    """A node in words: its name where it was given one, else its key without the position.

    Args:
        circuit: The circuit.
        node: One of its nodes.
    """
    key = unplaced(node)
    return circuit.names.get(key, key)


def word(circuit: CircuitParts, node: Node) -> str:
    """What stands behind a node's key: its slot and its name, or "".

    Args:
        circuit: The circuit.
        node: One of its nodes.
    """
    slot = "" if node.position is None else f"({circuit.slots[node.position]})"
    return " ".join(filter(None, (slot, circuit.names.get(unplaced(node), ""))))


def _shown(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
