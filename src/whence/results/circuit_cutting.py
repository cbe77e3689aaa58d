"""Smaller circuits from a circuit: the nodes and edges above a threshold, or the strongest nodes.

    node u stays   if |effects[u]| > node            edge u → d stays   if |weights[d, u]| > edge and both ends stay

Thresholds act on the means over examples. The metric always stays, and a node without edges may. Cost: one look at each
node and edge.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from whence.results.circuit_parts import AnyCircuit


def threshold(circuit: AnyCircuit, node: float | None, edge: float | None) -> AnyCircuit:
    """The part of a circuit above the thresholds.

    Args:
        circuit: The circuit.
        node: What the size of an effect must exceed; None keeps every node.
        edge: What the size of a weight must exceed; None keeps every edge.

    Raises:
        ValueError: A negative threshold.

    Example:
        >>> threshold(circuit, node=0.1, edge=0.01)  # doctest: +SKIP
    """
    given = {name: value for name, value in (("node", node), ("edge", edge)) if value is not None}
    for name, value in given.items():
        if not value >= 0:
            raise ValueError(f"threshold({name}={value}): sizes are compared, so a threshold is 0 or more.")
    kept = torch.ones(len(circuit.nodes), dtype=torch.bool) if node is None else circuit.effects.abs() > node
    own: dict[str, Any] = circuit.provenance.get("thresholds", {})
    thresholds = own | {name: max(value, own.get(name) or 0.0) for name, value in given.items()}
    part = _part(circuit, kept, {"thresholds": thresholds})
    if edge is None:
        return part
    return replace(part, weights=part.weights.changed(lambda block: block.values * (block.values.abs() > edge)))


def top(circuit: AnyCircuit, k: int) -> AnyCircuit:
    """The k nodes with the largest effects, the metric, and the edges among them.

    Args:
        circuit: The circuit.
        k: How many nodes beside the metric.

    Raises:
        ValueError: A negative number.

    Example:
        >>> len(top(circuit, 10).nodes)  # doctest: +SKIP
        11
    """
    if k < 0:
        raise ValueError(f"top({k}): a number of nodes is 0 or more.")
    kept = torch.zeros(len(circuit.nodes), dtype=torch.bool)
    kept[circuit.effects[:-1].abs().argsort(descending=True, stable=True)[:k]] = True
    return _part(circuit, kept, {"top": min(k, circuit.provenance.get("top", k))})


def _part(circuit: AnyCircuit, kept: Bool[Tensor, " node"], said: dict[str, Any]) -> AnyCircuit:
    kept[-1] = True
    index = kept.nonzero().reshape(-1)
    place = torch.where(kept, kept.cumsum(0) - 1, -1)
    return replace(
        circuit,
        nodes=circuit.nodes.select(index),
        effects=circuit.effects[index],
        weights=circuit.weights.mapped(place, len(index)),
        samples=None if circuit.samples is None else circuit.samples.mapped(place),
        provenance=circuit.provenance | said,
    )
