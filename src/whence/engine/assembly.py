"""Solved rows as the nodes and blocks of a graph: which number each node gets, and which columns are summed away.

Nodes: features with rows of their own | constant sources | embed | pos_embed | rest | bias | output. `rest` is the sum
of active features without a row, so that every row still adds up. Circuit-tracer's convention has no pos_embed, rest,
bias or BOS writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from whence.engine.expansion import Chunk, Solved
from whence.engine.linearize import Linearized
from whence.engine.stream import Group
from whence.results.keys import LogitTarget
from whence.results.nodes import NodeTable
from whence.results.weights import Block


@dataclass(frozen=True, eq=False)
class Numbering:
    """Node numbers of a graph."""

    place: Int[Tensor, " source"]  # source by number -> node; -1: summed into rest, or left out
    rest: int | None
    bias: int | None
    first_logit: int
    selected: Int[Tensor, " node"]  # features with rows, by source number

    def rows(self, chunk: Chunk, group: Group | None) -> Int[Tensor, " target"]:
        """Node numbers of a chunk's targets."""
        return self.first_logit + chunk.node if group is None else self.place[group.offset + chunk.node]

    def block(self, solved: Solved, group: Group | None) -> Block:
        """A chunk of rows over the graph's nodes."""
        rows = self.rows(solved.chunk, group)
        places = self.place[solved.columns]
        kept = places >= 0
        values = [solved.values.cpu() if bool(kept.all()) else solved.values.cpu()[:, kept]]
        columns = [places[kept]]
        if self.rest is not None:
            values.append(solved.values.cpu()[:, ~kept].sum(1, keepdim=True))
            columns.append(torch.tensor([self.rest]))
        if self.bias is not None:
            values.append(solved.constant.cpu()[:, None])
            columns.append(torch.tensor([self.bias]))
        return Block(rows, torch.cat(columns), torch.cat(values, 1) if len(values) > 1 else values[0])


def number(model: Linearized, selected: Int[Tensor, " node"], *, parity: bool) -> Numbering:
    """The nodes of a graph in which these features have rows.

    Args:
        model: the linearized prompt.
        selected: features by source number, ascending.
        parity: circuit-tracer's convention.
    """
    kept = torch.ones(model.stream.nodes, dtype=torch.bool)
    for at, group in enumerate(model.stream.groups):
        if at in model.readers or (parity and group.name == "pos_embed"):
            kept[group.offset : group.offset + len(group)] = False
    every = model.stream.nodes - int(kept.sum())
    kept[selected] = True
    place = torch.where(kept, kept.cumsum(0) - 1, -1)
    count = int(kept.sum())
    rest = count if not parity and len(selected) < every else None
    count += rest is not None
    bias = None if parity else count
    return Numbering(place, rest, bias, count + (bias is not None), selected)


def node_table(model: Linearized, numbering: Numbering, targets: Sequence[LogitTarget]) -> NodeTable:
    """The nodes themselves."""
    names: dict[str, int] = {}
    columns = [_columns(group, names) for group in model.stream.groups]
    sources = torch.cat(columns, 1)[:, numbering.place >= 0]
    closing = ([["rest"]] if numbering.rest is not None else []) + ([["bias"]] if numbering.bias is not None else [])
    rows = [[names.setdefault(name, len(names)), -1, -1, -1, -1] for (name,) in closing]
    output = names.setdefault("output", len(names))
    rows += [[output, -1, target.vocab_idx, -1, model.stream.length - 1] for target in targets]
    table = torch.cat([sources, torch.tensor(rows).T], 1)
    return NodeTable.from_columns(names, table)


def _columns(group: Group, names: dict[str, int]) -> Int[Tensor, "5 node"]:
    position = group.position()
    name = torch.full_like(position, names.setdefault(group.name, len(names)))
    if group.whole is not None and group.whole_at:
        name[torch.isin(position, torch.tensor(group.whole_at))] = names.setdefault(group.whole, len(names))
    layer = torch.full_like(position, -1 if group.layer is None else group.layer)
    inner = torch.full_like(position, -1) if group.inner is None else group.inner
    return torch.stack([name, layer, group.index, inner, position])
