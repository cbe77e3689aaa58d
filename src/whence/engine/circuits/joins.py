"""Products of what reads and what writes, over the pairs of units that can act on one another, summed by node.

    local    w = c · v             of one token
    wide     w = g[s_u] · v        g [pos, d] of one example, v at position s_u

Rows are grouped by token, padded to the largest group and multiplied group by group, so that the cost is that of the
pairs that exist; they are summed by (example, target node, source node) as they come. Knows nothing of what the rows
are.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.units import turns

AT_ONCE = 1 << 24  # numbers in one padded product
DENSE = 1 << 24  # numbers in a table that is kept whole while it is added to


@dataclass(frozen=True, eq=False)
class Rows:
    """Vectors at tokens: one row a unit at a token, with the number of the node it belongs to."""

    example: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    node: Int[Tensor, " n"]
    vector: Float[Tensor, "n d"]

    def __len__(self) -> int:
        return len(self.node)


@dataclass(frozen=True, eq=False)
class WideRows:
    """Fields over an example's positions: one a unit at a token."""

    example: Int[Tensor, " n"]
    node: Int[Tensor, " n"]
    field: Float[Tensor, "n pos d"]

    def __len__(self) -> int:
        return len(self.node)

    def plus(self, other: Float[Tensor, "n pos d"]) -> "WideRows":
        """With another field added to each."""
        return WideRows(self.example, self.node, self.field + other)


def widened(rows: Rows, length: int) -> WideRows:
    """Rows at tokens as fields that are zero elsewhere."""
    field = rows.vector.new_zeros(len(rows), length, rows.vector.shape[1])
    field[torch.arange(len(rows), device=field.device), rows.position] = rows.vector
    return WideRows(rows.example, rows.node, field)


class Table:
    """Weights by example, target node and source node."""

    def __init__(self, examples: int, targets: int, sources: int, like: Tensor) -> None:
        self.shape = (examples, targets, sources)
        size = examples * targets * sources
        self._whole = like.new_zeros(size) if size <= DENSE else None
        self._parts = [(torch.zeros(0, dtype=torch.long, device=like.device), like.new_zeros(0))]

    def add(self, example: Tensor, target: Tensor, source: Tensor, weight: Tensor) -> None:
        """Add weights; all arguments have one shape."""
        index = (example * self.shape[1] + target) * self.shape[2] + source
        if self._whole is not None:
            self._whole.index_add_(0, index.flatten(), weight.flatten().to(self._whole))
        else:
            self._parts.append(_summed(index.flatten(), weight.flatten()))

    def entries(self) -> tuple[Int[Tensor, "3 entry"], Float[Tensor, " entry"]]:
        """Example, target and source of every weight that is not zero, and the weight."""
        if self._whole is not None:
            flat = self._whole.nonzero()[:, 0]
            values = self._whole[flat]
        else:
            flat, values = _summed(*(torch.cat(parts) for parts in zip(*self._parts, strict=True)))
            there = values != 0
            flat, values = flat[there], values[there]
        _, targets, sources = self.shape
        return torch.stack([flat // (targets * sources), flat // sources % targets, flat % sources]), values


def _summed(index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of each index together."""
    index, place = index.unique(return_inverse=True)
    return index, weight.new_zeros(len(index)).index_add_(0, place, weight)


def join(down: Rows, up: Rows, length: int, table: Table) -> None:
    """Add c · v of every pair at one token."""
    if not len(down) or not len(up):
        return
    groups = [rows.example * length + rows.position for rows in (down, up)]
    shared = groups[0].unique()
    shared = shared[torch.isin(shared, groups[1])]
    if not len(shared):
        return
    place = torch.full((table.shape[0] * length,), -1, device=shared.device)
    place[shared] = torch.arange(len(shared), device=shared.device)
    c, target = _padded(down, place[groups[0]], len(shared))
    v, source = _padded(up, place[groups[1]], len(shared))
    _multiply(c, target, v, source, shared // length, table)


def join_wide(down: WideRows, up: Rows, table: Table) -> None:
    """Add g[s_u] · v of every pair in one example."""
    if not len(down) or not len(up):
        return
    length = down.field.shape[1]
    group = up.example * length + up.position
    used = group.unique()
    v, source = _padded(up, torch.searchsorted(used, group), len(used))
    turn = turns(down.example, table.shape[0])
    most = int(turn.max()) + 1
    lines = torch.full((table.shape[0], most), -1, dtype=torch.long, device=turn.device)
    lines[down.example, turn] = torch.arange(len(down), device=turn.device)
    mine = lines[used // length]  # [token, most]
    target = torch.where(mine >= 0, down.node[mine.clamp_min(0)], -1)
    step = max(1, AT_ONCE // max(1, most * down.field.shape[2]))
    for start in range(0, len(used), step):
        here = slice(start, start + step)
        c = down.field[mine[here].clamp_min(0), (used[here] % length)[:, None]]
        _multiply(c, target[here], v[here], source[here], used[here] // length, table)


def _padded(rows: Rows, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Vectors [group, most, d] and nodes [group, most], -1 where a group has fewer."""
    kept = group >= 0
    group, vector, node = group[kept], rows.vector[kept], rows.node[kept]
    turn = turns(group, groups)
    most = int(turn.max()) + 1 if len(turn) else 0
    vectors = vector.new_zeros(groups, most, vector.shape[1])
    vectors[group, turn] = vector
    nodes = torch.full((groups, most), -1, dtype=torch.long, device=node.device)
    nodes[group, turn] = node
    return vectors, nodes


def _multiply(c: Tensor, target: Tensor, v: Tensor, source: Tensor, example: Tensor, table: Table) -> None:
    """Add the products of padded groups; padding is left out."""
    step = max(1, AT_ONCE // max(1, c.shape[1] * v.shape[1]))
    for start in range(0, len(c), step):
        here = slice(start, start + step)
        weight = c[here] @ v[here].mT.to(c)
        there = ((target[here][:, :, None] >= 0) & (source[here][:, None, :] >= 0)).nonzero(as_tuple=True)
        table.add(
            example[here][there[0]], target[here][there[0], there[1]], source[here][there[0], there[2]], weight[there]
        )
