"""Parts of a circuit by size: what exceeds a threshold, or the strongest share of its nodes or edges.

An edge from an end of a head to the head itself is no connection: it is always kept and never counted. Cost: one look
at each node or edge. Knows nothing of scores.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whence.results.circuit_cutting import threshold, top
from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.weights import Weights


def above(circuit: AnyCircuit, limit: float, *, edges: bool) -> AnyCircuit:
    """The part whose nodes, or edges, exceed a threshold.

    Args:
        circuit: The circuit.
        limit: The threshold.
        edges: Whether it is one of edges.

    Raises:
        ValueError: A negative threshold.

    Example:
        >>> above(circuit, 0.1, edges=False)  # doctest: +SKIP
    """
    return threshold(circuit, None, limit) if edges else threshold(circuit, limit, None)


def largest(circuit: AnyCircuit, share: float, *, edges: bool) -> AnyCircuit:
    """The part with the strongest nodes, or edges.

    Args:
        circuit: The circuit.
        share: Of its nodes, or edges; how many that is is rounded.
        edges: Whether it is one of edges.

    Raises:
        ValueError: A share outside 0 to 1.

    Example:
        >>> largest(circuit, 0.1, edges=True)  # doctest: +SKIP
    """
    if not 0 <= share <= 1:
        raise ValueError(f"sizes= has {share}; a size is a share of the circuit's nodes or edges, from 0 to 1")
    many = round(share * size(circuit, edges=edges))
    if not edges:
        return top(circuit, many)
    target, source, value = circuit.weights.coo()
    strength = torch.where(inside(circuit, target, source), torch.inf, value.abs())
    kept = strength.argsort(descending=True, stable=True)[: int(strength.isinf().sum()) + many].sort().values
    return replace(circuit, weights=Weights.from_coo(target[kept], source[kept], value[kept], circuit.weights.shape))


def size(circuit: CircuitParts, *, edges: bool) -> int:
    """How many nodes without the metric, or edges, a circuit has.

    Args:
        circuit: The circuit.
        edges: Whether edges are counted.
    """
    if not edges:
        return len(circuit.nodes) - 1
    target, source, _ = circuit.weights.coo()
    return int((~inside(circuit, target, source)).sum())


def inside(circuit: CircuitParts, target: Int[Tensor, " edge"], source: Int[Tensor, " edge"]) -> Bool[Tensor, " edge"]:
    """Which edges lead from an end of a head to the head itself.

    Args:
        circuit: The circuit.
        target: Where each leads to.
        source: Where each leads from.
    """
    return (circuit.nodes.end[source] >= 0) & (circuit.nodes.end[target] < 0)
