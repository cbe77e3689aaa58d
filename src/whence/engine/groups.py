"""Groups of nodes as they are found, bottom up, and put in the order of a graph's nodes at the end."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from whence.engine.readers import Reader
from whence.engine.stream import Group, Sources, Stage

_RANK = {"mlp.feature": 0, "mlp.neuron": 0, "embed": 2, "pos_embed": 3}  # anything else: constant sources, rank 1


@dataclass(eq=False)
class Groups:
    """Groups so far, and the readers of those that read."""

    length: int
    found: list[Group] = field(default_factory=list[Group])
    readers: dict[int, Reader] = field(default_factory=dict[int, Reader])

    def add(self, group: Group, rows: Tensor, row: Tensor | None = None, scale: Tensor | None = None) -> Sources:
        """A new group of nodes and what they write."""
        self.found.append(group)
        return Sources(len(self.found) - 1, rows, row, scale)

    def one_each(self, name: str, layer: int | None, **special: Any) -> Group:
        """One node at every position."""
        return Group(name, layer, torch.full((self.length,), -1), list(range(self.length + 1)), **special)

    def order(self) -> list[int]:
        """The groups by rank, and by where they were found within one."""
        return sorted(range(len(self.found)), key=lambda number: _RANK.get(self.found[number].name, 1))

    @cached_property
    def places(self) -> dict[int, int]:
        """The place of each group in that order, once all are found."""
        return {number: place for place, number in enumerate(self.order())}

    def placed(self) -> tuple[Group, ...]:
        """The groups in order, each knowing its first node's number."""
        placed: list[Group] = []
        offset = 0
        for number in self.order():
            placed.append(replace(self.found[number], offset=offset))
            offset += len(self.found[number])
        return tuple(placed)

    def renumbered(self, stage: Stage) -> Stage:
        """A stage whose sources name their groups by the new order."""
        return replace(stage, sources=tuple(self.moved(sources) for sources in stage.sources))

    def moved(self, sources: Sources) -> Sources:
        """Sources that name their group by the new order."""
        return replace(sources, group=self.places[sources.group])
