"""The total effect of every feature on the targets, by one sweep: which nodes are worth a row.

Each active feature passes its pre-activation on with a local slope, so the frozen model with its features is linear,
and one covector a target comes down through all of it:

    g -> g + sum_f (g . d a_f / a_f) slope_f u_f          at each dictionary, u_f what the feature reads

The effect of a node is g . v at its place: the sum over all paths through the graph, signs included.
Cost: one sweep of the targets, and the active rows of each encoder once. Knows nothing of single edges.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.linearize import Linearized
from whence.engine.readers import Reader
from whence.engine.stream import Group, Sources, Stage


@torch.no_grad()
def total_effects(model: Linearized, vectors: Float[Tensor, "target d_model"]) -> Float[Tensor, "target node"]:
    """The signed effect of every source on directions read behind the final norm at the last position kept."""
    stream = model.stream
    last = torch.full((len(vectors),), stream.length - 1, device=vectors.device)
    down = vectors.new_zeros(stream.length, len(vectors), stream.width)
    down[-1] = stream.final.pull(vectors, last)
    effects = vectors.new_zeros(len(vectors), stream.nodes)
    for number in range(len(stream.stages) - 1, -1, -1):
        stage = stream.stages[number]
        for sources in stage.sources:
            _read(down, sources, stream.groups[sources.group], effects)
        down = _cross(stage, down)
        for group, reader in model.readers.items():
            if reader.stage == number:
                _through(down, reader, stream.groups[group], effects)
    for sources in stream.bottom:
        _read(down, sources, stream.groups[sources.group], effects)
    return effects


def _read(down: Tensor, sources: Sources, group: Group, effects: Tensor) -> None:
    for position, (a, b) in enumerate(zip(group.starts, group.starts[1:], strict=False)):
        if a < b:
            effects[:, group.offset + a : group.offset + b] += down[position] @ sources.at(a, b).T


def _cross(stage: Stage, down: Float[Tensor, "pos target d_model"]) -> Tensor:
    below = down.clone()
    for skip in stage.skips:
        below += skip.pull(down, skip.scale[:, None, None])
    if stage.attention is not None:
        stage.attention.add_pulled(down, below)
    return below


def _through(down: Tensor, reader: Reader, group: Group, effects: Tensor) -> None:
    """Add what the features of a reader pass on to what they read."""
    for position, (a, b) in enumerate(zip(group.starts, group.starts[1:], strict=False)):
        if a == b:
            continue
        nodes = torch.arange(a, b, device=down.device)
        pulled = reader.pulled(nodes, torch.full_like(nodes, position))
        activation = reader.activation(nodes)
        slope = torch.where(activation == 0, 0.0, reader.slope(nodes) / torch.where(activation == 0, 1.0, activation))
        down[position] += (effects[:, group.offset + a : group.offset + b] * slope) @ pulled.covector
