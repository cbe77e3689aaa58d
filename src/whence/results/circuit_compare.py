"""Several circuits on one set of nodes: their difference and their mean.

Nodes are matched by key, so circuits with positions need the same slots. A node or an edge that a circuit does not have
counts as 0, also where a threshold took it away. Cost: all edges of all circuits at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.circuit_sites import forward_order
from whence.results.graph_compare import added
from whence.results.union import union


def difference(circuit: AnyCircuit, other: AnyCircuit) -> AnyCircuit:
    """The first circuit minus the second.

    Args:
        circuit: The first.
        other: The second.

    Raises:
        ValueError: Circuits with other slots.

    Example:
        >>> difference(trained, untrained).edges(5)  # doctest: +SKIP
    """
    said = {"difference": [circuit.provenance, other.provenance]}
    return _combined([circuit, other], [1.0, -1.0], said)


def mean(circuits: Sequence[AnyCircuit]) -> AnyCircuit:
    """The mean over the examples of all circuits.

    Args:
        circuits: At least one.

    Raises:
        ValueError: No circuits, circuits without examples, or circuits with other slots.

    Example:
        >>> mean([simple, relative_clause]).examples  # doctest: +SKIP
        200
    """
    examples = sum(circuit.examples for circuit in circuits)
    if not examples:
        raise ValueError(f"mean of {len(circuits)} circuits with {examples} examples: give at least one of each.")
    shares = [circuit.examples / examples for circuit in circuits]
    return _combined(circuits, shares, {"mean": [circuit.provenance for circuit in circuits]})


def _combined(circuits: Sequence[AnyCircuit], factors: list[float], said: dict[str, Any]) -> AnyCircuit:
    _refuse_other_slots(circuits)
    nodes, places = union([circuit.nodes for circuit in circuits], forward_order)
    effects = torch.zeros(len(nodes), dtype=torch.float64)
    for circuit, place, factor in zip(circuits, places, factors, strict=True):
        effects[place] += factor * circuit.effects
    moved = [circuit.weights.mapped(place, len(nodes)) for circuit, place in zip(circuits, places, strict=True)]
    names = {key: name for circuit in reversed(circuits) for key, name in circuit.names.items()}
    return replace(
        circuits[0],
        nodes=nodes,
        effects=effects,
        weights=added(moved, factors),
        examples=sum(circuit.examples for circuit in circuits),
        samples=None,
        provenance=_shared(circuits) | said,
        names=names,
    )


def _refuse_other_slots(circuits: Sequence[CircuitParts]) -> None:
    slots = {circuit.slots for circuit in circuits}
    if len(slots) > 1:
        one, other = (list(each) or "none" for each in [*slots][:2])
        raise ValueError(
            f"circuits with other slots, {one} and {other}, have no nodes in common to be matched. Make both with the "
            "same template, or both with aggregate='sum'."
        )


def _shared(circuits: Sequence[CircuitParts]) -> dict[str, Any]:
    """What all circuits say of where they come from, but for how they were combined themselves."""
    first, *others = (circuit.provenance for circuit in circuits)
    own = {name: value for name, value in first.items() if name not in ("difference", "mean")}
    return {name: value for name, value in own.items() if all(said.get(name) == value for said in others)}
