"""Edges of a graph as values: where from, where to, how much. Cost: one `Node` for each end."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.keys import Edge, Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


@dataclass(frozen=True, slots=True, repr=False)
class WeightedEdge:
    """An edge and its weight: what the source adds to the target.

    Example:
        >>> WeightedEdge(Edge(Node("bias"), Node("output", index=3)), -1.5)
        WeightedEdge('bias -> output:3', -1.500)
    """

    edge: Edge
    weight: float

    @property
    def source(self) -> Node:
        """Where it leads from."""
        return self.edge.source

    @property
    def target(self) -> Node:
        """Where it leads to."""
        return self.edge.target

    def __repr__(self) -> str:
        return f"WeightedEdge('{self.edge}', {self.weight:+.3f})"


def between(
    nodes: NodeTable, sources: Int[Tensor, " edge"], targets: Int[Tensor, " edge"], weights: Float[Tensor, " edge"]
) -> tuple[WeightedEdge, ...]:
    """The edges with these ends, strongest first.

    Args:
        nodes: The nodes of the graph.
        sources: Where each edge leads from.
        targets: Where each leads to.
        weights: What each adds.
    """
    order = weights.abs().argsort(descending=True, stable=True).tolist()
    ends = zip(sources.tolist(), targets.tolist(), weights.tolist(), strict=True)
    made = [WeightedEdge(Edge(nodes[source], nodes[target]), weight) for source, target, weight in ends]
    return tuple(made[place] for place in order)


def strongest_entries(
    weights: Weights, scores: list[Float[Tensor, "_ _"]], k: int
) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Float[Tensor, " edge"]]:
    """Rows, columns and values of the k edges with the largest scores, first the largest.

    Args:
        weights: All edges.
        scores: The score of each entry, block by block.
        k: How many.
    """
    best = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0))
    for block, score in zip(weights, scores, strict=True):
        top = (score * (block.values != 0)).reshape(-1).topk(min(k, score.numel()))
        row, column = top.indices // score.shape[1], top.indices % score.shape[1]
        found = (block.rows[row], block.columns[column], block.values[row, column], top.values)
        joined = [torch.cat([mine.to(new.dtype), new]) for mine, new in zip(best, found, strict=True)]
        order = joined[3].topk(min(k, len(joined[3]))).indices
        best = (joined[0][order], joined[1][order], joined[2][order], joined[3][order])
    edges = best[2] != 0
    return best[0][edges], best[1][edges], best[2][edges]
