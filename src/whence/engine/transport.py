"""Rows of an attribution graph: directions carried back through the frozen model, stage by stage, without autograd.

    weights[t, s] = u_t^T J v_s

u_t reads a target at its position, v_s is what a source adds to the stream, J the Jacobian of the stream between them
with norms and attention patterns held and MLP outputs cut into sources. Targets that read at the same stage travel
together, ordered by position; a chunk of them is cut off after its last position, so nothing is computed where no
target can see. At each stage all sources of one position are read by all covectors in one matrix product. Every source
is read where it is written, so what stands between a weight and the stream (embedding scales, post-norms) is in v_s.

Two cuts make it cheaper than the plain product of Jacobians: the first attention above the sources projects values
before spreading them over keys (`AttentionMap.pull_one`), and below the lowest attention there are only embeddings, so
that attention is not traversed: what each token sends each position through it is itself a source (`pairs`).

Cost per target at position p and attention sublayer: about 4 (p + 1) d_model^2 multiply-adds. Memory of a chunk:
three to four arrays of (position, target, d_model). Knows nothing of why a target was chosen.
"""

from bisect import bisect_left
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.maps import runs
from whence.engine.stream import FrozenStream, Sources, Stage
from whence.engine.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights of some targets on every source they can see: `values[i, j]` is from source `columns[j]`."""

    columns: Int[Tensor, " column"]
    values: Float[Tensor, "target column"]


class _Sweep:
    """Covectors of one chunk of targets on their way down."""

    def __init__(
        self, stream: FrozenStream, stage: int, covector: Tensor, position: list[int], space: Workspace
    ) -> None:
        self.stream, self.position, self.own, self.space = stream, position, covector, space
        self.length = position[-1] + 1
        # How many targets of the chunk lie before each position: those after it are the ones that see it.
        self.first = [bisect_left(position, q) for q in range(self.length)]
        self.spread: Tensor | None = None  # [pos, target, d_model], once attention has been crossed
        self.slices: dict[int, slice] = {}
        columns: list[Tensor] = []
        total = 0
        for number in stream.visible(stage):
            group = stream.groups[number]
            count = group.starts[self.length]
            self.slices[number] = slice(total, total + count)
            columns.append(torch.arange(group.offset, group.offset + count))
            total += count
        self.columns = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.long)
        # By source first: the weights of one position's sources are then consecutive in memory.
        self.values = covector.new_zeros(total, len(position))

    def read(self, sources: Sources) -> None:
        """Add the weights of these sources on every covector."""
        group, values = self.stream.groups[sources.group], self.values[self.slices[sources.group]]
        if self.spread is None:
            for p, start, end in runs(self.position):
                a, b = group.starts[p], group.starts[p + 1]
                if a < b:
                    values[a:b, start:end].addmm_(sources.at(a, b), self.own[start:end].T)
            return
        if group.starts[: self.length + 1] == list(range(self.length + 1)):  # one source a position: all in one product
            vectors = sources.at(0, self.length)[:, :, None]
            values += torch.bmm(self.spread, vectors)[:, :, 0]
            return
        for q, start in enumerate(self.first):
            a, b = group.starts[q], group.starts[q + 1]
            if a < b:
                values[a:b, start:].addmm_(sources.at(a, b), self.spread[q, start:].T)

    def read_pairs(self, sources: Sources, pairs: list[Tensor]) -> None:
        """Add the weights of the bottom's sources through the lowest attention."""
        values = self.values[self.slices[sources.group]]
        if self.spread is None:
            for p, start, end in runs(self.position):
                values[: p + 1, start:end].addmm_(pairs[p], self.own[start:end].T)
            return
        for q, start in enumerate(self.first):
            values[: q + 1, start:].addmm_(pairs[q], self.spread[q, start:].T)

    def cross(self, stage: Stage) -> None:
        """Carry the covectors below a stage."""
        if self.spread is None:
            carried = self.own.clone() if stage.skips else self.own
            where = torch.tensor(self.position)
            for skip in stage.skips:
                carried += skip.pull(self.own, skip.scale[where][:, None])
            if stage.attention is not None:
                self.spread = stage.attention.pull_one(self.own, self.position, self.length, self.space)
                self.spread[where, torch.arange(len(where))] += carried
            self.own = carried
            return
        skipped = [skip.pull(self.spread, skip.scale[: self.length, None, None]) for skip in stage.skips]
        if stage.attention is not None:
            stage.attention.add_pulled(self.spread, self.spread, self.space)
        for one in skipped:
            self.spread += one


@torch.no_grad()
def pull_rows(
    stream: FrozenStream,
    stage: int,
    covector: Float[Tensor, "target d_model"],
    position: list[int],
    space: Workspace | None = None,
) -> Rows:
    """Weights of targets whose covectors stand at the foot of a stage.

    Args:
        stream: the frozen model of the prompt.
        stage: sources of the stages below it are seen; the number of stages for logits.
        covector: what reads the stream there.
        position: of each target, ascending.
        space: arrays to work in, for many chunks one after the other.

    Returns:
        One row a target, constants left out (`constant_rows`). Columns are nodes by number.
    """
    sweep = _Sweep(stream, stage, covector, position, space or Workspace())
    lowest = stream.lowest_attention() if stream.pairs is not None else None
    for number in range(stage - 1, -1, -1):
        here = stream.stages[number]
        for sources in here.sources:
            sweep.read(sources)
        if number == lowest and stream.pairs is not None:
            for sources, pairs in zip(stream.bottom, stream.pairs, strict=True):
                sweep.read_pairs(sources, pairs)
            break
        sweep.cross(here)
    for sources in stream.bottom:
        sweep.read(sources)
    return Rows(sweep.columns, sweep.values.T)


def constant_rows(
    stream: FrozenStream, stage: int, covector: Float[Tensor, "target d_model"], position: list[int]
) -> Float[Tensor, " target"]:
    """What biases below the stage add to each target."""
    where = torch.tensor(position, device=covector.device)
    return (covector * stream.constants[stage][where]).sum(-1)
