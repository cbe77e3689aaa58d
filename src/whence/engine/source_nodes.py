"""Nodes of a linearized prompt by number: every source, and `bias` after the last.

A source may write at several stages (features of a cross-layer transcoder); `writes_of` gathers what it adds at each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.assembly import Numbering, node_table
from whence.engine.linearize import Linearized
from whence.engine.stream import FrozenStream, Group, Sources
from whence.results.nodes import NodeTable

BOTTOM = -1  # the stage of what stands in the stream before the first one


@dataclass(frozen=True, eq=False)
class Writes:
    """What one source adds to the stream at its position, by stage."""

    position: int
    at: dict[int, Float[Tensor, " d_model"]]


def source_table(model: Linearized) -> NodeTable:
    """The nodes of all sources by number, then `bias`."""
    count = model.stream.nodes
    none = torch.zeros(0, dtype=torch.long)
    return node_table(model, Numbering(torch.arange(count), None, count, count + 1, none), ())


def group_of(stream: FrozenStream, number: int) -> tuple[int, Group]:
    """The group that a source belongs to."""
    return next((i, g) for i, g in enumerate(stream.groups) if g.offset <= number < g.offset + len(g))


def writes_of(stream: FrozenStream, number: int) -> Writes:
    """What a source writes, and where."""
    group, its = group_of(stream, number)
    local = number - its.offset
    places: list[tuple[int, tuple[Sources, ...]]] = [(BOTTOM, stream.bottom)]
    places += [(stage, here.sources) for stage, here in enumerate(stream.stages)]
    found = {
        stage: sources.at(local, local + 1)[0] for stage, here in places for sources in here if sources.group == group
    }
    return Writes(int(its.position()[local]), found)
