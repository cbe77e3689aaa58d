"""The part of a graph that carries a given share of the influence.

    1  keep the nodes with the largest I that together have a share `nodes` of it; tokens, constants and outputs stay
    2  score the edges among them by Â (I + w), Â and I taken anew on this part, and keep the largest that together have
       a share `edges`
    3  until nothing changes, drop features without an edge in, and features, errors and `rest` without an edge out

Constants and learned positions without an edge go last. Cost: a pass of influence and a selection among the kept
entries; nothing is sorted whole. It knows nothing of what the nodes mean.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from whence.results.influence import cumulative_shares, edge_scores, influence
from whence.results.kinds import of_kind
from whence.results.nodes import NodeTable
from whence.results.weights import Block, Weights

_SORTED = 30_000  # so few are sorted at once; more are halved first
TIE = 1e-9  # values that rounding alone tells apart are kept or dropped together


@dataclass(frozen=True, eq=False)
class Kept:
    """What pruning left: which nodes, the edges among them, and the cumulative share of influence of every node."""

    index: Int[Tensor, " kept"]
    weights: Weights
    shares: Float64[Tensor, " node"]


def prune(
    nodes: NodeTable,
    weights: Weights,
    targets: Float64[Tensor, " node"],
    flow: Float64[Tensor, " node"],
    node_share: float,
    edge_share: float,
) -> Kept:
    """The nodes and edges that carry these shares of influence.

    Args:
        nodes: What the rows and columns of `weights` are.
        weights: The edges.
        targets: w, the weight of each node as a target.
        flow: I, the influence of each node.
        node_share: Share of influence of the nodes to keep, 0 to 1; where nothing has influence, all are kept.
        edge_share: Share of influence of the edges to keep, 0 to 1.

    Raises:
        ValueError: An edge that does not lead to a higher layer.

    Example:
        >>> kept = prune(graph.nodes, graph.weights, targets, flow, 0.8, 0.98)  # doctest: +SKIP
    """
    always = of_kind(nodes, "token", "constant", "output")
    index = ((flow >= (1 - TIE) * least_kept(flow, node_share)) | always).nonzero().reshape(-1)
    part, among = nodes.select(index), weights.select(index)
    scores = edge_scores(among, influence(part, among, targets[index]) + targets[index])
    flat = torch.cat([score.reshape(-1) for score in scores]) if scores else torch.zeros(1)
    least = (1 - TIE) * least_kept(flat, edge_share)
    edges = [(block.values != 0) & (score >= least) for block, score in zip(among, scores, strict=True)]
    alive = _settled(part, list(among), edges)
    remaining = iter(edges)
    pruned = among.changed(lambda block: block.values * next(remaining)).select(alive.nonzero().reshape(-1))
    return Kept(index[alive], pruned, cumulative_shares(flow))


def least_kept(values: Float[Tensor, " value"], share: float) -> float:
    """The smallest of the largest values that together have a share of their sum.

    Args:
        values: None negative.
        share: 0 to 1; at 1 every value that is not 0 is kept.

    Example:
        >>> least_kept(torch.tensor([5.0, 1.0, 3.0]), 0.8)
        3.0
    """
    total = values.sum(dtype=torch.float64).item()
    if not total > 0:
        return 0.0
    if share >= 1:
        return values[values > 0].min().item()
    above = 0.0
    while len(values) > _SORTED:
        pivot = values[:: len(values) // 1000].median()
        high = values[values > pivot]
        sum_high = high.sum(dtype=torch.float64).item()
        if above + sum_high >= share * total:
            values = high
        elif len(high) == 0:  # the pivot is the largest value, and so many equal it that no halving gets past them
            break
        else:
            above, values = above + sum_high, values[values <= pivot]
    ordered = values.sort(descending=True).values
    reached = above + ordered.cumsum(0, dtype=torch.float64)
    place = int(torch.searchsorted(reached, share * total))
    return ordered[min(place, len(ordered) - 1)].item()


def _settled(nodes: NodeTable, blocks: list[Block], edges: list[Bool[Tensor, "_ _"]]) -> Bool[Tensor, " node"]:
    """The nodes that stay, the edges of others struck out in place."""
    features = of_kind(nodes, "feature")
    leaves = features | of_kind(nodes, "error", "rest")
    alive = torch.ones(len(nodes), dtype=torch.bool)
    while True:
        has_in, has_out = torch.zeros_like(alive), torch.zeros_like(alive)
        for block, kept in zip(blocks, edges, strict=True):
            kept &= alive[block.rows][:, None] & alive[block.columns]
            has_in[block.rows] = kept.any(1)
            has_out[block.columns] |= kept.any(0)
        settled = alive & (has_out | ~leaves) & (has_in | ~features)
        if torch.equal(settled, alive):
            stays = nodes.named(lambda name: name in ("embed", "output"))
            return alive & (has_out | stays)
        alive = settled
