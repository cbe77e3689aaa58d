"""What each example says of a circuit: the effect of every node that has one, and the edges among the kept nodes.

    effect[entry] belongs to (example[entry], candidate[entry])              an entry that is not there is 0
    edge[example, e] is the edge from source[e] to target[e]                 node numbers of the circuit

Cost: examples × (nodes with an effect + edges) numbers. It knows nothing of thresholds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64, Int
from torch import Tensor

from whence.results.nodes import NodeTable


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """The numbers whose means over examples are the circuit's.

    Args:
        candidates: Every node with an effect in some example, kept or not; without the metric.
        example: For each effect, its example.
        candidate: For each effect, its node among the candidates.
        effect: The effects.
        target: For each edge, the node of the circuit that it leads to.
        source: For each edge, the node of the circuit that it leads from.
        edge: The edges by example.
        total: The total effect of each example.

    Raises:
        ValueError: Parts that do not belong together; names both sizes.

    Example:
        >>> circuit.samples.total.mean()  # doctest: +SKIP
        tensor(-3.1200, dtype=torch.float64)
    """

    candidates: NodeTable
    example: Int[Tensor, " entry"]
    candidate: Int[Tensor, " entry"]
    effect: Float32[Tensor, " entry"]
    target: Int[Tensor, " edge"]
    source: Int[Tensor, " edge"]
    edge: Float32[Tensor, "_example _edge"]
    total: Float64[Tensor, " example"]

    def __post_init__(self) -> None:
        if tuple(self.edge.shape) != (len(self.total), len(self.target)):
            wanted = f"{len(self.total)} examples × {len(self.target)} edges"
            raise ValueError(f"samples: edge has the shape {tuple(self.edge.shape)}, and {wanted} are called for.")
        limits = {"example": len(self.total), "candidate": len(self.candidates)}
        for name, limit in limits.items():
            numbers = getattr(self, name)
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < limit:
                raise ValueError(f"samples: {name} reaches {int(numbers.max())}, and there are {limit} of them.")

    def __repr__(self) -> str:
        return f"Samples({len(self.total)} examples, {len(self.candidates):,} nodes with an effect)"

    def check(self, nodes: int) -> None:
        """Refuses edges between nodes that a circuit of so many nodes does not have.

        Args:
            nodes: How many nodes the circuit has.

        Raises:
            ValueError: An end past them.
        """
        ends = torch.cat([self.target, self.source])
        if len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < nodes:
            raise ValueError(f"samples: an edge ends at node {int(ends.max())}, and the circuit has {nodes}.")

    def mapped(self, place: Int[Tensor, " node"]) -> "Samples":
        """The samples of a circuit where node i has become node place[i]; edges at those at −1 are dropped.

        Args:
            place: For each node its new number, or −1.
        """
        target, source = place[self.target], place[self.source]
        kept = ((target >= 0) & (source >= 0)).nonzero().reshape(-1)
        effects = (self.candidates, self.example, self.candidate, self.effect)
        return Samples(*effects, target[kept], source[kept], self.edge[:, kept], self.total)
