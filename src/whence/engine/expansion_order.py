"""Which nodes get rows of their own.

    all         every active feature
    exact       the strongest by their total effect on the targets (engine.screening), chosen once
    influence   the most influential first: solve some, see what feeds them, solve those, and so on

Influence follows absolute weights, each row divided by its sum, from the targets down; only rows already solved pass
influence on. Source: Ameisen et al. 2025, "Circuit Tracing"; the order is circuit-tracer's.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.expansion import Solved, node_numbers
from whence.engine.linearize import Linearized
from whence.engine.screening import total_effects

ROUNDS = 16  # how often the order is looked at anew on the way to `max_nodes`

Solve = Callable[[Int[Tensor, " node"]], Sequence[Solved]]


def readable(model: Linearized) -> Int[Tensor, " node"]:
    """Every node that could have a row, in order."""
    groups = (model.stream.groups[number] for number in sorted(model.readers))
    ranges = [torch.arange(group.offset, group.offset + len(group)) for group in groups]
    return torch.cat(ranges) if ranges else torch.zeros(0, dtype=torch.long)


def strongest(
    model: Linearized, vectors: Float[Tensor, "target d_model"], weights: Float[Tensor, " target"], count: int
) -> Int[Tensor, " node"]:
    """The nodes with the largest total effects on the targets, weighed by the targets' weights."""
    nodes = readable(model)
    sizes = (weights.abs()[:, None] * total_effects(model, vectors).abs()).sum(0).cpu()[nodes]
    return nodes[sizes.topk(min(count, len(nodes))).indices].sort().values


def by_influence(
    model: Linearized,
    logits: Solved,
    weights: Float[Tensor, " target"],
    count: int,
    solve: Solve,
    *,
    constants: bool = True,
) -> list[Solved]:
    """Rows of the most influential nodes, found on the way down.

    Args:
        model: the linearized prompt.
        logits: the targets' rows.
        weights: of the targets.
        count: how many nodes get rows.
        solve: gives the rows of nodes.
        constants: whether biases count in the sum of a row.
    """
    nodes, solved = readable(model), list[Solved]()
    waiting = torch.ones(len(nodes), dtype=torch.bool)
    count = min(count, len(nodes))
    step = max(1, -(-count // ROUNDS))
    done = 0
    while done < count:
        influence = influence_of(model, logits, weights, solved, constants=constants)[nodes].masked_fill(~waiting, -1)
        chosen = influence.topk(min(step, count - done)).indices
        waiting[chosen] = False
        done += len(chosen)
        solved += solve(nodes[chosen])
    return solved


def influence_of(
    model: Linearized,
    logits: Solved,
    weights: Float[Tensor, " target"],
    solved: Sequence[Solved],
    *,
    constants: bool = True,
) -> Float[Tensor, " node"]:
    """Influence of every source on the targets through the rows solved so far."""
    total = torch.zeros(model.stream.nodes)
    _pass_on(total, logits, weights.abs().float().cpu(), constants)
    # A feature's row reaches only below its own stage: from the top down, each row is complete when it is passed on.
    for one in sorted(solved, key=lambda s: -_stage(model, s)):
        _pass_on(total, one, total[node_numbers(model, one.chunk)], constants)
    return total


def _stage(model: Linearized, solved: Solved) -> int:
    assert solved.chunk.group is not None
    return model.readers[solved.chunk.group].stage


def _pass_on(
    total: Float[Tensor, " node"], solved: Solved, influence: Float[Tensor, " target"], constants: bool
) -> None:
    values = solved.values.abs().float().cpu()
    sizes = values.sum(1) + constants * solved.constant.abs().float().cpu()
    share = (influence / sizes.clamp_min(1e-10)) @ values
    total.index_add_(0, solved.columns, share)
