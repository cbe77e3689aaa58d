"""Effects gathered over examples, and which units are nodes.

The effect of a unit in a slot is the sum over the slot's tokens, by example; the node's effect is the mean over
examples. A node is kept if the size of that mean exceeds the threshold: what a unit does in one example decides nothing
unless `per_example` asks for the published code's rule, where a unit is kept at each token where its own effect exceeds
it. Memory: one entry for each unit, slot and example with an effect, and a mean for each unit and slot.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from whence.engine.circuits.edges import Kept
from whence.engine.circuits.examples import Part
from whence.engine.circuits.network import CircuitSite
from whence.results.nodes import NodeTable


@dataclass(frozen=True, eq=False)
class EffectEntries:
    """Effects that are not zero: one line an example, slot and unit."""

    example: Int[Tensor, " entry"]
    slot: Int[Tensor, " entry"]
    unit: Int[Tensor, " entry"]
    effect: Float[Tensor, " entry"]


class Gathered:
    """The effects at one site."""

    def __init__(self, site: CircuitSite, slots: int, examples: int) -> None:
        self.site, self.slots, self.examples = site, slots, examples
        self.total: Tensor = torch.zeros(slots, site.units.count, dtype=torch.float64)
        self.passing: Tensor = torch.zeros(slots, site.units.count, dtype=torch.bool)  # in some example, at some token
        self._entries: list[EffectEntries] = []

    def add(self, part: Part, effect: Float[Tensor, "n pos unit"], threshold: float) -> None:
        """Take the effects of some examples."""
        real = part.slot >= 0
        n, units = len(part.example), self.site.units.count
        line = (torch.arange(n, device=effect.device)[:, None] * self.slots + part.slot)[real]
        summed = effect.new_zeros(n * self.slots, units).index_add(0, line, effect[real]).view(n, self.slots, units)
        self.total += summed.double().sum(0).cpu()
        over = (effect.abs() > threshold) & real[..., None]
        slot, unit = over.nonzero(as_tuple=True)[1], over.nonzero(as_tuple=True)[2]
        self.passing[part.slot[over.nonzero(as_tuple=True)[:2]].cpu(), unit.cpu()] = True
        example, slot, unit = summed.nonzero(as_tuple=True)
        values = summed[example, slot, unit]
        self._entries.append(EffectEntries(part.example[example].cpu(), slot.cpu(), unit.cpu(), values.cpu()))

    @property
    def mean(self) -> Float[Tensor, "slot unit"]:
        """Over examples."""
        return self.total / self.examples

    def entries(self) -> EffectEntries:
        """Everything taken."""
        fields = ("example", "slot", "unit", "effect")
        return EffectEntries(*(torch.cat([getattr(one, name) for one in self._entries]) for name in fields))


@dataclass(frozen=True, eq=False)
class Chosen:
    """The nodes of a site: units ascending, then slots."""

    site: CircuitSite
    unit: Int[Tensor, " node"]
    slot: Int[Tensor, " node"]
    first: int  # number of the first of them among all nodes
    effect: Float[Tensor, " node"]

    def __len__(self) -> int:
        return len(self.unit)

    def numbers(self, slot: Int[Tensor, " n"], unit: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Which node each unit in a slot is; -1 for none."""
        if not len(self):
            return torch.full_like(unit, -1)
        wide = self.site.units.count
        mine, order = (self.slot * wide + self.unit).sort()
        asked = slot * wide + unit
        place = torch.searchsorted(mine, asked).clamp_max(len(mine) - 1)
        return torch.where(mine[place] == asked, order[place], -1)

    def kept(self, slot: Int[Tensor, "n pos"], passing: Bool[Tensor, "n pos unit"] | None) -> Kept:
        """Which node each unit is at each token.

        Args:
            slot: of each token, -1 at padding.
            passing: where a unit is kept at all; None for everywhere.
        """
        device = slot.device
        unit, column = self.unit.unique(return_inverse=True)
        table = torch.full((int(self.slot.max()) + 1 if len(self) else 1, len(unit)), -1)
        table[self.slot, column] = torch.arange(len(self))
        table, unit = table.to(device), unit.to(device)
        inside = (slot >= 0) & (slot < len(table))
        number = torch.where(inside[..., None], table[slot.clamp(0, len(table) - 1)], -1)
        if passing is not None:
            number = torch.where(passing[..., unit], number, -1)
        return Kept(unit, number, len(self))


def choose(gathered: list[Gathered], threshold: float, *, per_example: bool) -> list[Chosen]:
    """The nodes of every site, numbered through."""
    found: list[Chosen] = []
    for one in gathered:
        mean = one.mean
        unit, slot = (one.passing if per_example else mean.abs() > threshold).T.nonzero(as_tuple=True)
        first = found[-1].first + len(found[-1]) if found else 0
        found.append(Chosen(one.site, unit, slot, first, mean[slot, unit]))
    return found


def table_of(site: CircuitSite, unit: Int[Tensor, " node"], slot: Int[Tensor, " node"] | None) -> NodeTable:
    """The keys of units at one site.

    Args:
        site: where they are.
        unit: their numbers there.
        slot: their slots; None where positions are summed.
    """
    units = site.units
    single = {at: units.name(at)[0] for at in range(max(0, units.count - 2), units.count) if units.name(at)[1] is None}
    ends = [units.name(0)[0], *single.values()]
    names = tuple(dict.fromkeys(f"{site.name}.{end}" if end else site.name for end in ends))
    name, index = torch.zeros_like(unit), unit.clone()
    for at, end in single.items():
        here = unit == at
        name[here] = names.index(f"{site.name}.{end}" if end else site.name)
        index[here] = -1
    nothing = torch.full_like(unit, -1)
    layer = nothing if site.layer is None else torch.full_like(unit, site.layer)
    return NodeTable(names, name, layer, index, nothing, nothing if slot is None else slot, nothing)


def joined(tables: list[NodeTable]) -> NodeTable:
    """Several tables, one after the other."""
    names = tuple(dict.fromkeys(name for table in tables for name in table.names))
    place = [torch.tensor([names.index(name) for name in table.names]) for table in tables]
    columns = torch.cat([table.columns() for table in tables], 1)
    columns[0] = torch.cat([where[table.name] for where, table in zip(place, tables, strict=True)])
    return NodeTable(names, *columns)
