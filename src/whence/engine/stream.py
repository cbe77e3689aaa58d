"""One prompt's frozen model as data: stages from bottom to top, what each carries on, and the sources it adds.

A stage is what reads the same stream: an attention sublayer, an MLP, or both in parallel blocks. A source is a vector
added to the stream at one position; sources of one kind and place form a `Group` of consecutive nodes ordered by
position, so that what a target at position p can see of a group is a prefix of it.

    stream after stage = stream + attention(stream) + skip(stream) + sources + constants

Cost: plain data. Knows nothing of targets or of where the numbers came from.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.maps import AttentionMap, NormAt, SkipMap


@dataclass(frozen=True, eq=False)
class Group:
    """Consecutive nodes of one kind, ordered by position.

    Args:
        name: of the nodes, as in their keys.
        layer: of the nodes, if they have one.
        index: of each node within its layer (a feature, a token id), -1 for none.
        inner: second part of the index (a neuron of an expert), -1 for none.
        whole, whole_at: another name for the nodes at some positions.
        starts: the first node of each position, and the number of nodes.
        offset: of the first node among all.
    """

    name: str
    layer: int | None
    index: Int[Tensor, " node"]
    starts: list[int]
    offset: int = 0
    inner: Int[Tensor, " node"] | None = None
    whole: str | None = None  # the name of the nodes at `whole_at`, where no dictionary stands
    whole_at: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.starts[-1]

    def position(self) -> Int[Tensor, " node"]:
        """Of each node."""
        starts = torch.tensor(self.starts)
        return torch.repeat_interleave(torch.arange(len(self.starts) - 1), starts.diff())


@dataclass(frozen=True, eq=False)
class Sources:
    """What the nodes of a group add to the stream at one stage: scale * row; nodes of several positions share rows."""

    group: int  # its place among the groups
    rows: Float[Tensor, "row d_model"]
    row: Int[Tensor, " node"] | None  # None: one row a node, in order
    scale: Float[Tensor, " node"] | None

    def at(self, start: int, end: int) -> Float[Tensor, "node d_model"]:
        """The vectors of these nodes."""
        rows = self.rows[start:end] if self.row is None else self.rows[self.row[start:end]]
        return rows if self.scale is None else rows * self.scale[start:end, None]


@dataclass(frozen=True, eq=False)
class Stage:
    """What reads the stream at one place."""

    attention: AttentionMap | None = None
    skips: tuple[SkipMap, ...] = ()
    sources: tuple[Sources, ...] = ()
    constant: Float[Tensor, "pos d_model"] | None = None


@dataclass(frozen=True, eq=False)
class FrozenStream:
    """The linear model of one prompt."""

    stages: tuple[Stage, ...]
    groups: tuple[Group, ...]
    bottom: tuple[Sources, ...]  # token embeddings, learned positions
    final: NormAt
    length: int
    width: int
    constants: list[Float[Tensor, "pos d_model"]] = field(default_factory=list[Tensor])
    pairs: tuple[list[Float[Tensor, "_ d_model"]], ...] | None = None

    @property
    def nodes(self) -> int:
        """How many sources there are."""
        return sum(len(group) for group in self.groups)

    def visible(self, stage: int) -> list[int]:
        """The groups that a target at the foot of a stage can see, in order."""
        below = {source.group for one in self.stages[:stage] for source in one.sources}
        return sorted(below) + [source.group for source in self.bottom]

    def lowest_attention(self) -> int | None:
        """The stage of the first attention, if nothing but the bottom's sources is below it."""
        for number, stage in enumerate(self.stages):
            if stage.skips:
                return None
            if stage.attention is not None:
                return number
            if stage.sources:
                return None
        return None


def constants_below(stream: FrozenStream, like: Tensor) -> list[Float[Tensor, "pos d_model"]]:
    """The part of the stream that comes from biases alone, before each stage and after the last."""
    total = like.new_zeros(stream.length, stream.width)
    before = [total]
    for stage in stream.stages:
        added = total
        if stage.attention is not None:
            added = added + stage.attention.push(total) + stage.attention.constant
        for skip in stage.skips:
            added = added + skip.push(total) + skip.constant
        total = added if stage.constant is None else added + stage.constant
        before.append(total)
    return before
