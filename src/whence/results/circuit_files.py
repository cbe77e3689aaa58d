"""Circuits on disk: a folder of whence's own, and tables of nodes and edges.

The edges and what each example says lie in the large file. Cost of opening: the nodes; the rest is read when it is
first used.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from whence.errors import FileFormatError
from whence.results import graph_files, store
from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.circuit_samples import Samples
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

Table = Literal["nodes", "edges"]
_SAMPLED = ("example", "candidate", "effect", "target", "source", "edge")


class StoredSamples(Samples):
    """The samples in a file, read when they are first asked for.

    Args:
        candidates: Every node with an effect in some example.
        total: The total effect of each example.
        read: Gives the other tensors by name.
    """

    _read: Callable[[], dict[str, Tensor]]

    def __init__(self, candidates: NodeTable, total: Tensor, read: Callable[[], dict[str, Tensor]]) -> None:
        vars(self).update(candidates=candidates, total=total, _read=read)

    def __getattr__(self, name: str) -> Tensor:
        if name not in _SAMPLED:
            raise AttributeError(f"Samples has no {name!r}")
        vars(self).update(self._read())
        return vars(self)[name]

    def check(self, nodes: int) -> None:
        """Nothing: the samples were checked before they were saved, and the file's checksum says that they are those.

        Args:
            nodes: How many nodes the circuit has.
        """


def save(circuit: CircuitParts, path: str | Path) -> Path:
    """The folder it was saved to.

    Args:
        circuit: The circuit.
        path: Folder to make, or a result of whence to replace.

    Raises:
        FileFormatError: Something else is there; choose another path.

    Example:
        >>> save(circuit, "runs/agreement")  # doctest: +SKIP
    """
    samples = circuit.samples
    meta = {
        "table": list(circuit.nodes.names),
        "slots": list(circuit.slots),
        "examples": circuit.examples,
        "provenance": circuit.provenance,
        "names": dict(circuit.names),
        "candidates": None if samples is None else list(samples.candidates.names),
    }
    tensors = {"nodes": circuit.nodes.columns(), "effects": circuit.effects}
    large = graph_files.packed("weights", circuit.weights)
    if samples is not None:
        tensors |= {"samples.candidates": samples.candidates.columns(), "samples.total": samples.total}
        large |= {f"samples.{name}": getattr(samples, name) for name in _SAMPLED}
    return store.write(path, "circuit", meta, tensors, large)


def load(kind: type[AnyCircuit], path: str | Path) -> AnyCircuit:
    """The circuit that `save` wrote there; edges and samples are not read yet.

    Args:
        kind: The class of the circuit.
        path: The folder.

    Raises:
        FileFormatError: No circuit, damaged, or of a newer version (upgrade whence).

    Example:
        >>> load(CircuitData, "runs/agreement")  # doctest: +SKIP
    """
    record = store.read(path, "circuit")
    try:
        return _circuit(kind, record.meta, record.tensors, record.large)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} does not describe a circuit: {error}.") from error


def write_csv(circuit: CircuitParts, path: str | Path, what: Table) -> Path:
    """The file, one line a node (node, effect, name) or an edge (source, target, weight).

    Args:
        circuit: The circuit.
        path: The file to write.
        what: Which of them.

    Raises:
        ValueError: Another word for `what`.

    Example:
        >>> write_csv(circuit, "nodes.csv", "nodes")  # doctest: +SKIP
    """
    check_table(what)
    if what == "edges":
        return graph_files.write_csv(circuit, path)
    with Path(path).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("node", "effect", "name"))
        for node, effect in zip(circuit.nodes, circuit.effects.tolist(), strict=True):
            key = str(node)
            writer.writerow((key, effect, circuit.names.get(key.partition("@")[0], "")))
    return Path(path)


def check_table(what: str) -> None:
    """Refuses what is neither table.

    Raises:
        ValueError: Another word.
    """
    if what not in get_args(Table):
        raise ValueError(f"what={what!r}: a circuit has tables of {' and '.join(map(repr, get_args(Table)))}.")


def _circuit(
    kind: type[AnyCircuit], meta: dict[str, Any], tensors: dict[str, Tensor], large: store.Large
) -> AnyCircuit:
    nodes = NodeTable.from_columns(meta["table"], tensors["nodes"])
    return kind(
        nodes=nodes,
        effects=tensors["effects"],
        weights=Weights((len(nodes), len(nodes)), lambda: graph_files.stored(large, "weights")),
        slots=tuple(meta["slots"]),
        examples=meta["examples"],
        samples=None if meta["candidates"] is None else _samples(meta["candidates"], tensors, large),
        provenance=meta["provenance"],
        names=meta["names"],
    )


def _samples(names: list[str], tensors: dict[str, Tensor], large: store.Large) -> StoredSamples:
    candidates = NodeTable.from_columns(names, tensors["samples.candidates"])
    return StoredSamples(
        candidates, tensors["samples.total"], lambda: {name: large.tensors[f"samples.{name}"] for name in _SAMPLED}
    )
