"""Solve the rows of chosen nodes, in chunks that fit a memory budget, each row checked against the number it explains.

Targets of one reader are taken in the order of their positions. A chunk ends where it would need too much memory, or
where its positions have grown so far apart that carrying the first one past its own end costs more than a tenth. Chunks
depend on the list of nodes and the budget alone, so that a list split over several processes gives the same rows.

Cost: engine.transport's, a row a target. Memory: `CHUNK_BYTES` at most for the sweep, and the rows themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.linearize import Linearized
from whence.engine.transport import constant_rows, pull_rows
from whence.engine.workspace import Workspace

CHUNK_BYTES = 1 << 28
ENOUGH_ROWS = 2048  # (position, target) pairs: more make a matrix product no faster
COPIES = 3  # of a row while it becomes part of a graph
ARRAYS = 4  # of (position, target, widest) alive at once in a sweep


@dataclass(frozen=True, eq=False)
class Chunk:
    """Targets of one reader, by ascending position; None for the reader means logits."""

    group: int | None
    node: Int[Tensor, " target"]  # within the group; the number of the logit
    position: list[int]


@dataclass(frozen=True, eq=False)
class Solved:
    """Rows of one chunk. Columns are sources by number; constants are apart."""

    chunk: Chunk
    columns: Int[Tensor, " column"]
    values: Float[Tensor, "target column"]
    constant: Float[Tensor, " target"]
    value: Float[Tensor, " target"]
    scale: Float[Tensor, " target"]

    def gap(self) -> Float[Tensor, " target"]:
        """How far each row is from the number it explains."""
        return (self.values.sum(1, dtype=torch.float64) + self.constant.double() - self.value.double()).abs()

    def magnitude(self) -> Float[Tensor, " target"]:
        """What rounding is relative to: the sum of the sizes of a row's parts, or |row| |read| where that is more."""
        parts = torch.linalg.vector_norm(self.values, 1, dim=1, dtype=torch.float64) + self.constant.abs().double()
        return torch.maximum(parts, self.scale.double())

    def with_values(self, values: Float[Tensor, "target column"]) -> "Solved":
        """The same rows, their numbers kept elsewhere."""
        return replace(self, values=values)


def chunks(model: Linearized, nodes: Int[Tensor, " node"], chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """The chunks of these nodes, by group, then position.

    Args:
        model: the linearized prompt.
        nodes: sources by number, each of a group that reads.
        chunk_bytes: memory a sweep may take.
    """
    stream = model.stream
    for number in sorted(model.readers):
        group = stream.groups[number]
        mine = nodes[(nodes >= group.offset) & (nodes < group.offset + len(group))] - group.offset
        mine = mine.sort().values  # nodes of a group are ordered by position
        positions: list[int] = group.position()[mine].tolist()
        cost = _Cost(cell_bytes(model), _row_bytes(model, number), chunk_bytes)
        start = 0
        for end in range(1, len(mine) + 1):
            if end == len(mine) or cost.full(positions, start, end):
                yield Chunk(number, mine[start:end], positions[start:end])
                start = end


def least_bytes(model: Linearized) -> int:
    """What a single row needs at most: its sweep, itself and its copies."""
    return (
        model.stream.length * cell_bytes(model)
        + COPIES * model.stream.final.inverse.element_size() * model.stream.nodes
    )


def cell_bytes(model: Linearized) -> int:
    """Bytes of a sweep for one target at one position."""
    stream = model.stream
    widest = max([stream.width, *(s.attention.output.shape[1] for s in stream.stages if s.attention is not None)])
    return ARRAYS * widest * stream.final.inverse.element_size()


@dataclass(frozen=True)
class _Cost:
    """What decides where a chunk of one group ends."""

    cell: int  # bytes of a sweep for one target at one position
    row: list[int]  # bytes of a target's row and its copies, by the target's position
    limit: int

    def full(self, positions: list[int], start: int, end: int) -> bool:
        """Whether the next target (at `end`) should begin a chunk of its own."""
        length, count = positions[end] + 1, end - start
        if (count + 1) * (length * self.cell + self.row[length - 1]) > self.limit:
            return True
        return count * length >= ENOUGH_ROWS and positions[end] - positions[start] > length // 10


def node_numbers(model: Linearized, chunk: Chunk) -> Int[Tensor, " target"]:
    """A chunk's targets as sources."""
    assert chunk.group is not None
    return model.stream.groups[chunk.group].offset + chunk.node


def _row_bytes(model: Linearized, number: int) -> list[int]:
    """Bytes of a row and its copies, by position: what a target of this group sees of every group below it."""
    stream = model.stream
    seen = torch.zeros(stream.length, dtype=torch.long)
    for group in stream.visible(model.readers[number].stage):
        seen += torch.tensor(stream.groups[group].starts[1:])
    return (COPIES * stream.final.inverse.element_size() * seen).tolist()


def solve(model: Linearized, chunk: Chunk, space: Workspace | None = None) -> Solved:
    """The rows of one chunk of nodes."""
    assert chunk.group is not None
    reader = model.readers[chunk.group]
    device = model.stream.final.inverse.device
    pulled = reader.pulled(chunk.node.to(device), torch.tensor(chunk.position, device=device))
    rows = pull_rows(model.stream, reader.stage, pulled.covector, chunk.position, space)
    constant = pulled.constant + constant_rows(model.stream, reader.stage, pulled.covector, chunk.position)
    return Solved(chunk, rows.columns, rows.values, constant, pulled.value, pulled.scale)


def solve_logits(
    model: Linearized,
    vectors: Float[Tensor, "target d_model"],
    constant: Float[Tensor, " target"],
    value: Float[Tensor, " target"],
    scale: Float[Tensor, " target"],
) -> Solved:
    """The rows of directions read behind the final norm at the last position kept.

    Args:
        model: the linearized prompt.
        vectors: one direction a target.
        constant: what the output embedding's bias adds to each.
        value: the numbers to explain, that constant included.
        scale: the length of each direction times that of what it reads.
    """
    stream = model.stream
    position = [stream.length - 1] * len(vectors)
    covector = stream.final.pull(vectors, torch.tensor(position, device=vectors.device))
    rows = pull_rows(stream, len(stream.stages), covector, position)
    bias = vectors @ stream.final.bias.expand(stream.width)
    bias = bias + constant + constant_rows(stream, len(stream.stages), covector, position)
    chunk = Chunk(None, torch.arange(len(vectors)), position)
    return Solved(chunk, rows.columns, rows.values, bias, value, scale)
