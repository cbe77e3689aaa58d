"""Which sources each unit of a circuit listens to, site by site: its in-edges, as groups of units that share them.

    d of the circuit             the sources of its edges             (complement: everything but them)
    the metric                   the sources of its edges             (complement: everything but them)
    errors that are all kept     everything
    all other units              nothing: they are ablated            (complement: everything)

An edge leads from a site to the sites that read the stream before another site holds all of it. Cost: one look at each
edge. Knows nothing of values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whence.engine.ablations.nodes import Rules, error_of
from whence.engine.ablations.selecting import Placed
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.routes import upstream
from whence.results.circuit_parts import CircuitParts
from whence.results.names import ENDS

HEAD_ENDS = tuple(ENDS.index(end) for end in "qkv")


@dataclass(frozen=True)
class Sources:
    """Nodes that a unit listens to, or all units but them."""

    nodes: tuple[int, ...] = ()
    but: bool = False


EVERYTHING = Sources(but=True)
EndSources = tuple[Sources, ...]  # one for all that a unit reads, or one each for a head's queries, keys and values


@dataclass(frozen=True, eq=False)
class Group:
    """Units of a site that share their sources."""

    ends: EndSources
    slot: Int[Tensor, " place"]
    unit: Int[Tensor, " place"]


@dataclass(frozen=True, eq=False)
class Hearing:
    """What every site, and the metric, listens to."""

    nodes: dict[CircuitSite, Placed]
    rules: Rules
    groups: dict[CircuitSite, list[Group]]  # a unit in none is ablated; in several, the last one counts
    metric: Sources

    def targets(self, site: CircuitSite, group: Group) -> Bool[Tensor, "slot unit"]:
        """Which units of a site are in a group."""
        mask = torch.zeros(self.rules.slots, site.units.count, dtype=torch.bool)
        mask[group.slot, group.unit] = True
        return self.rules.decided(site.units, mask) if self.rules.errors == "remove" else mask

    def sources(self, site: CircuitSite, said: Sources) -> Bool[Tensor, "slot unit"]:
        """Which units of a site are listened to."""
        slots, units = self.rules.slots, site.units
        if self.rules.alone(site):
            return torch.ones(slots, units.count, dtype=torch.bool)
        mask = torch.zeros(slots, units.count, dtype=torch.bool)
        if site in self.nodes and said.nodes:
            here = self.nodes[site]
            mask = here.where(torch.isin(here.number, torch.tensor(said.nodes))).mask(slots, units.count)
        return self.rules.decided(units, mask ^ said.but)


def hearing_of(
    network: Network,
    circuit: CircuitParts,
    nodes: dict[CircuitSite, Placed],
    rules: Rules,
    *,
    complement: bool = False,
) -> Hearing:
    """The edges of a circuit, or all but them.

    Args:
        network: the model and its sites.
        circuit: has the edges.
        nodes: where its nodes are.
        rules: of errors, embeddings and lower layers; they hold for the complement as well.
        complement: whether the edges are what is ablated.

    Raises:
        ValueError: an edge between sites that are not next to each other in this network.
    """
    into = _into(circuit)
    _check(network, circuit, nodes)
    groups = {site: _rest(site, rules.slots) if complement else [] for site in network.sites}
    for site, found in groups.items():
        found += _groups(nodes[site], into, complement) if site in nodes else []
        found += _error(site, rules.slots) if rules.errors == "keep" else []
    return Hearing(nodes, rules, groups, Sources(into.get(len(circuit.nodes) - 1, ()), complement))


def _into(circuit: CircuitParts) -> dict[int, tuple[int, ...]]:
    """The sources of every node that has any."""
    target, source, _ = circuit.weights.coo()
    number, many = target.unique_consecutive(return_counts=True)
    parts = source.split(many.tolist())
    return {node: tuple(part.tolist()) for node, part in zip(number.tolist(), parts, strict=True)}


def _groups(nodes: Placed, into: dict[int, tuple[int, ...]], complement: bool) -> list[Group]:
    """The units of a site that are nodes, or have ends that are, by what they listen to."""
    lines = zip(*(column.tolist() for column in (nodes.unit, nodes.slot, nodes.end, nodes.number)), strict=True)
    parts: dict[tuple[int, int], dict[int, int]] = {}
    for unit, slot, end, number in lines:
        parts.setdefault((unit, slot), {})[end] = number
    found: dict[EndSources, list[tuple[int, int]]] = {}
    for place, numbers in parts.items():
        if complement or -1 in numbers:
            found.setdefault(_ends(numbers, into, complement), []).append(place)
    return [Group(ends, *torch.tensor(places).T.flip(0)) for ends, places in found.items()]


def _ends(numbers: dict[int, int], into: dict[int, tuple[int, ...]], complement: bool) -> EndSources:
    """What a unit listens to: its own in-edges, or with ends those of each; an edge from an end to its head is none."""
    own = {number for end, number in numbers.items() if end >= 0}
    direct = tuple(number for number in into.get(numbers.get(-1, -1), ()) if number not in own)
    if not own:
        return (Sources(direct, complement),)
    sources = (direct + into.get(numbers.get(end, -1), ()) for end in HEAD_ENDS)
    return tuple(Sources(tuple(sorted({*each})), complement) for each in sources)


def _rest(site: CircuitSite, slots: int) -> list[Group]:
    """All units of a site, which listen to everything."""
    places = torch.cartesian_prod(torch.arange(slots), torch.arange(site.units.count))
    return [Group((EVERYTHING,), *places.T)]


def _error(site: CircuitSite, slots: int) -> list[Group]:
    """The error of a site, which listens to everything."""
    error = error_of(site.units)
    if error is None:
        return []
    return [Group((EVERYTHING,), torch.arange(slots), torch.full((slots,), error))]


def _check(network: Network, circuit: CircuitParts, nodes: dict[CircuitSite, Placed]) -> None:
    place = {site: number for number, site in enumerate(network.sites)}
    at = torch.full((len(circuit.nodes),), len(place))
    for site, here in nodes.items():
        at[here.number] = place[site]
    target, source, _ = circuit.weights.coo()
    pairs = torch.stack([at[target], at[source]]).unique(dim=1).T.tolist()
    sites: Sequence[CircuitSite | None] = [*network.sites, None]
    for down, up in pairs:
        if down == up or sites[up] in upstream(network, sites[down])[1]:
            continue
        line = int(((at[target] == down) & (at[source] == up)).nonzero()[0])
        raise ValueError(
            f"the circuit has an edge {circuit.nodes[int(source[line])]} -> {circuit.nodes[int(target[line])]}, which "
            "is not direct here: another site of these dictionaries holds all that lies between; pass the dictionaries "
            "that the circuit was found with"
        )
