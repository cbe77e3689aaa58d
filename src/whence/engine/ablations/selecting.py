"""From a circuit's node keys back to the model: the site, the unit there and the slot of every node.

The keys that `nodes.table_of` writes are read here: `2.resid_post.feature:7@3` is unit 7 of the site `2.resid_post` in
the circuit's slot 3. Ends of heads (`3.attn.head:1.q`) stand at their head. Cost: one look at each distinct name and
layer. Knows nothing of what is done with the units.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whence.engine.circuits.examples import Examples
from whence.engine.circuits.network import CircuitSite, Network
from whence.results.nodes import NodeTable


@dataclass(frozen=True, eq=False)
class Placed:
    """The nodes of a circuit at one site."""

    number: Int[Tensor, " node"]  # in the circuit
    unit: Int[Tensor, " node"]
    slot: Int[Tensor, " node"]  # the circuit's; 0 where positions are summed
    end: Int[Tensor, " node"]  # as in node tables, -1 for the unit itself

    def where(self, chosen: Bool[Tensor, " node"]) -> "Placed":
        """Some of them."""
        return Placed(self.number[chosen], self.unit[chosen], self.slot[chosen], self.end[chosen])

    def mask(self, slots: int, units: int) -> Bool[Tensor, "slot unit"]:
        """True at these nodes."""
        found = torch.zeros(slots, units, dtype=torch.bool, device=self.unit.device)
        found[self.slot, self.unit] = True
        return found


def placed(network: Network, nodes: NodeTable) -> dict[CircuitSite, Placed]:
    """The nodes at every site of the network; the metric is at none.

    Args:
        network: the model and its sites.
        nodes: a circuit's.

    Raises:
        ValueError: a node that is at no site, or past the last unit of its site.
    """
    sites = {place: found for site in network.sites for place, found in _places(site).items()}
    numbers: dict[CircuitSite, list[Tensor]] = {site: [] for site in network.sites}
    unit = nodes.index.clone()
    metric = nodes.named(lambda name: name == "metric")
    kinds = torch.stack([nodes.name, nodes.layer])[:, ~metric].unique(dim=1)
    for name, layer in kinds.T.tolist():
        here = ((nodes.name == name) & (nodes.layer == layer) & ~metric).nonzero()[:, 0]
        found = sites.get((layer, nodes.names[name]))
        if found is None:
            keys = ", ".join(site.key for site in network.sites)
            raise ValueError(
                f"the circuit's node {nodes[int(here[0])]} is at no site of these dictionaries ({keys}); pass the "
                "dictionaries that the circuit was found with"
            )
        site, single = found
        if single is not None:
            unit[here] = single
        numbers[site].append(here)
    return {site: _checked(site, nodes, unit, torch.cat(parts)) for site, parts in numbers.items() if parts}


def _places(site: CircuitSite) -> dict[tuple[int, str], tuple[CircuitSite, int | None]]:
    """(layer, name) of the keys of a site's units, and which unit it is where the name alone says it."""
    layer, units = -1 if site.layer is None else site.layer, site.units
    found: dict[tuple[int, str], tuple[CircuitSite, int | None]] = {}
    for unit in {0, max(0, units.count - 2), units.count - 1}:
        end, index = units.name(unit)
        found[layer, f"{site.name}.{end}" if end else site.name] = (site, unit if index is None else None)
    return found


def _checked(site: CircuitSite, nodes: NodeTable, unit: Tensor, number: Tensor) -> Placed:
    number, units = number.sort().values, site.units
    indexed = sum(units.name(at)[1] is not None for at in range(max(0, units.count - 2), units.count))
    many = units.count - min(2, units.count) + indexed  # errors and skips have no index
    past = (nodes.index[number] >= many).nonzero()[:, 0]
    if len(past):
        raise ValueError(
            f"the circuit's node {nodes[int(number[past[0]])]} is past the {many} units of {site.key} in these "
            "dictionaries; pass the dictionaries that the circuit was found with"
        )
    return Placed(number, unit[number], nodes.position[number].clamp_min(0), nodes.end[number])


def slots_of(circuit: tuple[str, ...], examples: Examples) -> Int[Tensor, " slot"]:
    """The circuit's slot for each slot of the examples.

    Args:
        circuit: names of the circuit's slots; none where positions are summed.
        examples: whose tokens are looked up.

    Raises:
        ValueError: examples with positions that the circuit does not know.
    """
    if not circuit:
        return torch.zeros(examples.n_slots, dtype=torch.long)
    if not examples.order:
        raise ValueError(
            f"the circuit's nodes are at the positions {', '.join(circuit)}, and the pairs have prompts of several "
            "lengths and no names of positions; give pairs with slots, or a circuit with aggregate='sum'"
        )
    number = {name: i for i, name in enumerate(circuit)}
    unknown = [name for name in examples.order if name not in number]
    if not unknown:
        return torch.tensor([number[name] for name in examples.order])
    if len(unknown) == len(examples.order) == len(circuit) and all(name.isdecimal() for name in unknown):
        return torch.arange(len(circuit))  # positions without names: the number is the slot
    raise ValueError(
        f"the pairs have tokens at {', '.join(unknown)}, and the circuit's positions are {', '.join(circuit)}; give "
        "pairs of the template that the circuit was found on"
    )
