"""Which attention heads carry an edge: its weight split exactly over heads and the part that no head carries.

An edge is u^T J v, and J is a product over stages of (I + S + sum_h H_h): the stream itself, linear skips, heads.
Every path from source to target either crosses no head (`direct`: at one position) or has a head that it crosses first
and one that it crosses last, so that counting each path at one of them splits the edge, nothing counted twice:

    by source:  loading(m, h) = g_m^T H_{m,h} d_m     g: u through everything;  d: v through the stream and skips alone
    by target:  loading(m, h) = c_m^T H_{m,h} f_m     c: u through the stream and skips alone;  f: v through everything

By source it is the first head that moves what the source wrote; by target the last, which hands it to the target's
position. Both are the plain sum over heads where an edge crosses attention at one layer. Splits of one layer at a time
(every path through a head of that layer) sum to the edge with what bypasses the layer, but not over layers.

Cost: one sweep of the frozen stream a target (by source) or a source (by target), and one a target for the check.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.maps import AttentionMap
from whence.engine.source_nodes import BOTTOM, Writes
from whence.engine.stream import FrozenStream, Stage
from whence.engine.transport import pull_rows

Parts = tuple[dict[int, Float[Tensor, " head"]], Float[Tensor, ""]]


@dataclass(frozen=True, eq=False)
class Reading:
    """One target: a covector at the foot of a stage (the number of stages for a logit), at its position."""

    stage: int
    position: int
    covector: Float[Tensor, " d_model"]


@torch.no_grad()
def row_of(stream: FrozenStream, target: Reading) -> Float[Tensor, " source"]:
    """The target's row over all sources by number, zero where it sees none."""
    rows = pull_rows(stream, target.stage, target.covector[None], [target.position])
    full = target.covector.new_zeros(stream.nodes)
    full[rows.columns.to(full.device)] = rows.values[0]
    return full


@torch.no_grad()
def split_by_source(stream: FrozenStream, target: Reading, sources: list[Writes]) -> list[Parts]:
    """For each source, its edge to one target as (loading by stage and head, direct)."""
    feet = [dict(_carried_up(stream, source, target.stage)) for source in sources]
    parts: list[dict[int, Tensor]] = [{} for _ in sources]
    down = target.covector.new_zeros(stream.length, 1, stream.width)
    down[target.position, 0] = target.covector
    for number in range(target.stage - 1, -1, -1):
        stage = stream.stages[number]
        if stage.attention is not None:
            heads = _heads(stage.attention, down[:, 0])
            for source, foot, found in zip(sources, feet, parts, strict=True):
                mixed = torch.einsum("gqr,qgre->gre", stage.attention.pattern[:, source.position], heads)
                values = torch.einsum("d,ged->ge", foot[number], stage.attention.value)
                found[number] = torch.einsum("gre,ge->gr", mixed, values).flatten()
        down = _below(stage, down)
    return [
        (found, _direct(target, source, foot[target.stage]))
        for source, foot, found in zip(sources, feet, parts, strict=True)
    ]


@torch.no_grad()
def split_by_target(stream: FrozenStream, source: Writes, targets: list[Reading]) -> list[Parts]:
    """For each target, its edge from one source as (loading by stage and head, direct)."""
    tops = [dict(_carried_down(stream, target)) for target in targets]
    parts: list[dict[int, Tensor]] = [{} for _ in targets]
    up = _placed(stream, source, BOTTOM, targets[0].covector)
    for number in range(max(target.stage for target in targets)):
        stage = stream.stages[number]
        if stage.attention is not None:
            values = torch.einsum("kd,ged->gke", up, stage.attention.value)
            for target, top, found in zip(targets, tops, parts, strict=True):
                if number < target.stage:
                    heads = _heads(stage.attention, top[number][None])[0]
                    mixed = torch.einsum("gkr,gke->gre", stage.attention.pattern[:, :, target.position], values)
                    found[number] = (mixed * heads).sum(-1).flatten()
        up = _above(stage, up) + _placed(stream, source, number, up)
    straight = dict(_carried_up(stream, source, len(stream.stages)))
    return [
        (found, _direct(target, source, straight[target.stage])) for target, found in zip(targets, parts, strict=True)
    ]


def _heads(attention: AttentionMap, covector: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos group share d_head"]:
    """Covectors at the outputs of heads."""
    groups, _, _, share = attention.pattern.shape
    return (covector @ attention.output).view(len(covector), groups, share, -1)


def _direct(target: Reading, source: Writes, foot: Float[Tensor, " d_model"]) -> Float[Tensor, ""]:
    same = target.position == source.position
    return target.covector @ foot if same else target.covector.new_zeros(())


def _carried_up(stream: FrozenStream, source: Writes, end: int) -> Iterator[tuple[int, Float[Tensor, " d_model"]]]:
    """What the source wrote, at the foot of each stage, as the stream and skips carry it at its own position."""
    here = source.at.get(BOTTOM, stream.final.inverse.new_zeros(stream.width))
    for number, stage in enumerate(stream.stages[:end]):
        yield number, here
        skipped = [(here @ skip.matrix.T) * skip.scale[source.position] for skip in stage.skips]
        here = here + sum(skipped) + source.at.get(number, 0.0)
    yield end, here


def _carried_down(stream: FrozenStream, target: Reading) -> Iterator[tuple[int, Float[Tensor, " d_model"]]]:
    """The target's covector at the top of each stage, as the stream and skips carry it at its own position."""
    here = target.covector
    for number in range(target.stage - 1, -1, -1):
        yield number, here
        skipped = [skip.pull(here, skip.scale[target.position]) for skip in stream.stages[number].skips]
        here = here + sum(skipped)


def _below(stage: Stage, down: Float[Tensor, "pos 1 d_model"]) -> Float[Tensor, "pos 1 d_model"]:
    below = down.clone()
    for skip in stage.skips:
        below += skip.pull(down, skip.scale[:, None, None])
    if stage.attention is not None:
        stage.attention.add_pulled(down, below)
    return below


def _above(stage: Stage, up: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
    added = [skip.push(up) for skip in stage.skips]
    if stage.attention is not None:
        added.append(stage.attention.push(up))
    return up + sum(added)


def _placed(stream: FrozenStream, source: Writes, stage: int, like: Tensor) -> Float[Tensor, "pos d_model"]:
    """What the source adds to the stream at one stage."""
    added = like.new_zeros(stream.length, stream.width)
    if stage in source.at:
        added[source.position] = source.at[stage]
    return added
