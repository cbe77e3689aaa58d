"""How much each node of a graph matters to its targets, and how much of that is explained.

    Â = |weights| / max(Σ|row|, 1e-10)      I = w Â + w Â² + …      w: the targets' weights, at their nodes

Edges lead from lower layers to higher ones, and within a layer from what precedes the MLP (attention, a state space) to
what the MLP reads; so the series is finite, and one pass from the targets down sums all of it.
Targets whose weights differ in sign count by size: influence is a share, and shares of both signs would cancel.

    replacement  = I(tokens) / (I(tokens) + I(errors))
    completeness = Σ_n (1 − Σ_errors Â[n, ·]) (I + w)_n / Σ_n (I + w)_n

Constants and `rest` are in neither sum of the replacement score: they come from no token and are no error. In graphs of
convention "circuit-tracer" n runs over all nodes, so that tokens and errors, which have no rows, count as complete; in
whence's own it runs over the nodes that have a row. A score without anything to divide by is 0. Cost: one read of the
weights. It knows nothing of models.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from whence.results.kinds import of_kind
from whence.results.nodes import NodeTable
from whence.results.weights import Block, Weights

_LEAST_ROW = 1e-10
_BEFORE_THE_MLP = ("attn", "ssm")


def influence(
    nodes: NodeTable,
    weights: Weights,
    targets: Float64[Tensor, " node"],
    expanded: Bool[Tensor, " node"] | None = None,
) -> Float64[Tensor, " node"]:
    """I of each node, without w itself.

    Args:
        nodes: What the rows and columns of `weights` are.
        weights: The edges.
        targets: w, the weight of each node as a target; not negative.
        expanded: Nodes whose rows count; None for all. Influence ends at the others.

    Raises:
        ValueError: An edge that does not lead to a higher layer, or to the MLP of its own; names it.

    Example:
        >>> nodes = NodeTable.from_nodes([Node("mlp.feature", 0, 7, position=0), Node("output", index=3, position=0)])
        >>> weights = Weights.from_dense(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        >>> influence(nodes, weights, torch.tensor([0.0, 0.5]).double())
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    reached = targets.clone()
    for block in _from_targets_down(nodes, weights):
        absolute = block.values.abs()
        share = reached[block.rows] / _sums(absolute)
        if expanded is not None:
            share = share * expanded[block.rows]
        reached.index_add_(0, block.columns, (share.to(absolute.dtype) @ absolute).double())
    return reached - targets


def edge_scores(weights: Weights, reached: Float64[Tensor, " node"]) -> list[Float[Tensor, "_ _"]]:
    """Â · (I + w) of each entry, block by block: the share of influence that flows through an edge.

    Args:
        weights: The edges.
        reached: I + w of each node.
    """
    out: list[Tensor] = []
    for block in weights:
        absolute = block.values.abs()
        out.append(absolute * (reached[block.rows] / _sums(absolute)).to(absolute.dtype)[:, None])
    return out


def replacement_score(
    nodes: NodeTable, targets: Float64[Tensor, " node"], weights: Weights, expanded: Bool[Tensor, " node"]
) -> float:
    """The share of influence that ends at tokens rather than at errors; features not expanded are errors.

    Args:
        nodes: What the rows and columns of `weights` are.
        targets: w.
        weights: The edges.
        expanded: Features that count as explained.
    """
    flow = influence(nodes, weights, targets, expanded)
    tokens = flow[of_kind(nodes, "token")].sum().item()
    return _share(tokens, tokens + flow[_unexplained(nodes, expanded)].sum().item())


def completeness_score(
    nodes: NodeTable,
    targets: Float64[Tensor, " node"],
    weights: Weights,
    expanded: Bool[Tensor, " node"],
    rows_only: bool,
) -> float:
    """The share of the nodes' inputs, weighted by influence, that does not come from errors.

    Args:
        nodes: What the rows and columns of `weights` are.
        targets: w.
        weights: The edges.
        expanded: Features that count as explained.
        rows_only: Whether nodes without a row are left out, rather than taken to be complete.
    """
    errors = _unexplained(nodes, expanded)
    reached = influence(nodes, weights, targets, expanded) + targets
    missing, has_row = torch.zeros_like(reached), torch.zeros_like(errors)
    for block in weights:
        absolute = block.values.abs()
        sums = _sums(absolute)
        missing[block.rows] = absolute[:, errors[block.columns]].sum(1, dtype=torch.float64) / sums
        has_row[block.rows] = sums > _LEAST_ROW
    missing, has_row = missing * expanded, has_row & expanded
    counted = reached * has_row if rows_only else reached
    return _share(((1 - missing) * counted).sum().item(), counted.sum().item())


def cumulative_shares(scores: Float64[Tensor, " node"]) -> Float64[Tensor, " node"]:
    """For each node the share of all influence that it and the stronger ones have: small where it matters.

    Args:
        scores: Influence of each node.

    Example:
        >>> cumulative_shares(torch.tensor([1.0, 3.0]).double()).tolist()
        [1.0, 0.75]
    """
    order = scores.argsort(descending=True, stable=True)
    total = scores.sum()
    out = torch.zeros_like(scores)
    if total > 0:
        out[order] = (scores[order].cumsum(0) / total).clamp_max(1.0)
    return out


def _unexplained(nodes: NodeTable, expanded: Bool[Tensor, " node"]) -> Bool[Tensor, " node"]:
    return of_kind(nodes, "error") | (of_kind(nodes, "feature") & ~expanded)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _sums(absolute: Float[Tensor, "r c"]) -> Float64[Tensor, " r"]:
    return absolute.sum(1).double().clamp_min(_LEAST_ROW)


def _from_targets_down(nodes: NodeTable, weights: Weights) -> Iterator[Block]:
    """The blocks, those of higher layers first, each of one depth; outputs are above all layers."""
    depth = 2 * nodes.layer + 1
    depth[nodes.of(*_BEFORE_THE_MLP)] -= 1
    depth[nodes.of("output")] = int(depth.max()) + 1 if len(depth) else 0
    parts = [part for block in weights for part in _by_depth(block, depth)]
    for height, block in sorted(parts, key=lambda part: -part[0]):
        columns = depth[block.columns]
        if len(columns) and int(columns.max()) >= height:  # columns of other rows of the block, or an edge gone wrong
            _check_order(nodes, block, columns >= height)
        yield block


def _by_depth(block: Block, depth: Int[Tensor, " node"]) -> Iterator[tuple[int, Block]]:
    heights = depth[block.rows]
    if not len(heights):
        return
    low, high = (int(end) for end in heights.aminmax())
    if low == high:
        yield low, block
        return
    for height in heights.unique().tolist():
        rows = heights == height
        yield height, Block(block.rows[rows], block.columns, block.values[rows])


def _check_order(nodes: NodeTable, block: Block, too_high: Bool[Tensor, " c"]) -> None:
    wrong = block.values[:, too_high].nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        source, target = nodes[int(block.columns[too_high][column])], nodes[int(block.rows[row])]
        raise ValueError(
            f"edge {source} -> {target} does not lead to a higher layer, so influence has no order to follow."
        )
