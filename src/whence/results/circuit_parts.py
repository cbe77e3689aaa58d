"""What a circuit holds: nodes with their effects on a metric, and the direct edges between them.

    effects[u]    = change of the metric when u goes from its clean value to the baseline, mean over examples
    weights[d, u] = the part of it that goes directly from u to d, everything between them held

Everything is plain data on the CPU and opens without the model. It knows nothing of files or pictures, nor of how the
numbers were computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from whence.results.circuit_samples import Samples
from whence.results.edged import Edged
from whence.results.edges import WeightedEdge, strongest_entries
from whence.results.keys import Edge
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


@dataclass(frozen=True, eq=False, repr=False)
class CircuitParts(Edged):
    """The parts of a circuit, which fit together; `CircuitData` says what each is.

    Raises:
        ValueError: Parts that do not belong together; names both sizes.

    Example:
        >>> circuit.into("metric")[0].weight  # doctest: +SKIP
        -1.07
    """

    nodes: NodeTable
    effects: Float64[Tensor, " node"]
    weights: Weights
    slots: tuple[str, ...]
    examples: int
    samples: Samples | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes = len(self.nodes)
        if self.nodes.of("metric").tolist() != [nodes - 1]:
            raise ValueError(f"the node 'metric' must be the last of the {nodes} nodes, and be there once.")
        _check("effects", len(self.effects), nodes, "one a node")
        _check("weights", self.weights.shape, (nodes, nodes), "nodes × nodes")
        self._check_positions(self.nodes)
        if self.samples is not None:
            _check("samples.total", len(self.samples.total), self.examples, "one an example")
            self._check_positions(self.samples.candidates)
            self.samples.check(nodes)

    @property
    def total(self) -> float:
        """The mean total effect: of everything going from clean to the baseline at once."""
        return float(self.effects[-1])

    @property
    def errors(self) -> int:
        """How many of the nodes are errors: what no feature of a dictionary carries."""
        return int(self.nodes.named(lambda name: name.endswith(".error")).sum())

    @property
    def explained(self) -> Float64[Tensor, " node"]:
        """For each node, the share of its effect that its edges in the circuit carry; NaN where it has none.

        With attribution patching and every node kept it is 1: all edges out of a node sum to its effect.

        Example:
            >>> circuit.explained[circuit.nodes.find("0.embed.feature:7")]  # doctest: +SKIP
            tensor(0.8731, dtype=torch.float64)
        """
        out = self.weights.rmatvec(torch.ones(len(self.nodes), dtype=torch.float64))
        known = self.effects != 0
        known[-1] = False  # nothing leads on from the metric
        return torch.where(known, out / self.effects, torch.nan)

    def edges(self, k: int = 10) -> tuple[WeightedEdge, ...]:
        """The k edges with the largest weights, first the largest.

        Args:
            k: How many.

        Example:
            >>> circuit.edges(1)  # doctest: +SKIP
            (WeightedEdge('2.resid_post.feature:7 -> metric', -1.071),)
        """
        sizes = [block.values.abs() for block in self.weights]
        rows, columns, values = strongest_entries(self.weights, sizes, k)
        ends = zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
        return tuple(WeightedEdge(Edge(self.nodes[source], self.nodes[row]), weight) for source, row, weight in ends)

    def _check_positions(self, nodes: NodeTable) -> None:
        positions = nodes.position[~nodes.named(lambda name: name == "metric")]
        low, high = (0, len(self.slots) - 1) if self.slots else (-1, -1)
        if len(positions) and not low <= int(positions.min()) <= int(positions.max()) <= high:
            has = f"has the slots 0 to {high}" if self.slots else "has no slots, so no node has a position"
            raise ValueError(
                f"nodes have the positions {int(positions.min())} to {int(positions.max())}, and the circuit {has}."
            )


AnyCircuit = TypeVar("AnyCircuit", bound=CircuitParts)  # what a circuit is made from, its kind is


def _check(name: str, size: object, wanted: object, rule: str) -> None:
    if size != wanted:
        raise ValueError(f"{name} has {size}, and {wanted} is called for: {rule}.")
