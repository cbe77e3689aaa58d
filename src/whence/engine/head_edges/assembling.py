"""The plain data of a circuit of heads and MLPs, from tables of edges by target and source.

    nodes     sources; ends of heads (q, k, v) where these are targets; MLPs that are written neuron by neuron; metric
    edges     the tables' mean over examples; each end to its head, and each such MLP to its neurons, with what reaches
              them, so that what flows into a unit stands beside what flows out of it
    effects   of what writes the sum of its edges out, of what reads the sum of its edges in

Cost: one entry an edge, and where examples are told apart one number an edge and example. Knows nothing of models.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from whence.engine.circuits.assembling import Assembled
from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.nodes import joined, table_of
from whence.engine.head_edges.wiring import HeadWiring
from whence.results.circuit_samples import Samples
from whence.results.circuit_sites import forward_order
from whence.results.keys import Node
from whence.results.names import ENDS
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


@dataclass(frozen=True, eq=False)
class EdgeTables:
    """Edges over all examples."""

    table: Float64[Tensor, "table target source"]  # one an example, or their mean
    reach: Float64[Tensor, " neuron"]  # mean
    total: Float64[Tensor, " example"]


class _Numbering:
    """The node that each row and each column of the tables is: sources first, then what only reads."""

    def __init__(self, wiring: HeadWiring) -> None:
        self.wiring = wiring
        self.tables = [_units(site) for site in wiring.network.sites]
        self.count = wiring.shape[1]
        self.of_row = torch.cat([self._rows(site) for site in wiring.rows])

    def _rows(self, site: CircuitSite | None) -> Int[Tensor, " target"]:
        if site is None:
            return self._new(NodeTable.from_nodes([Node("metric")]))
        if site in self.wiring.crowded:
            return self._new(NodeTable.from_nodes([Node(site.name, site.layer)]))
        if site not in self.wiring.reads or not self.wiring.by_input:
            return torch.arange(self.wiring.columns[site].start, self.wiring.columns[site].stop)
        return self._new(joined([_at_end(_units(site), end) for end in ("q", "k", "v")]))

    def _new(self, table: NodeTable) -> Int[Tensor, " node"]:
        self.tables.append(table)
        self.count += len(table)
        return torch.arange(self.count - len(table), self.count)

    def inner(self, effects: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, sources and weights [example, edge] of edges from what reads to what it belongs to."""
        none = torch.zeros(0, dtype=torch.long)
        parts: list[tuple[Tensor, Tensor, Tensor]] = [(none, none, effects[:, :0])]
        done = 0
        for site, rows in self.wiring.rows.items():
            if site is None:
                continue
            units = torch.arange(self.wiring.columns[site].start, self.wiring.columns[site].stop)
            reading = self.of_row[rows]
            if site in self.wiring.crowded:
                parts.append((units, reading.expand_as(units), reach[None, done : done + len(units)]))
                done += len(units)
            elif site in self.wiring.reads and self.wiring.by_input:
                parts.append((units.repeat(3), reading, effects[:, reading]))
        target, source, value = zip(*parts, strict=True)
        return torch.cat(target), torch.cat(source), torch.cat(value, 1)


def assemble_edges(wiring: HeadWiring, found: EdgeTables) -> Assembled:
    """The parts of a circuit; without samples where examples are not told apart."""
    numbering = _Numbering(wiring)
    nodes = joined(numbering.tables)
    order = forward_order(nodes)
    place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order)))
    effects = torch.zeros(len(found.table), len(nodes), dtype=torch.float64)
    effects[:, numbering.of_row] = found.table.sum(2)
    effects[:, : wiring.shape[1]] = found.table.sum(1)
    row, column = (found.table != 0).any(0).nonzero(as_tuple=True)
    to_unit, from_end, inside = numbering.inner(effects, found.reach)
    target = place[torch.cat([numbering.of_row[row], to_unit])]
    source = place[torch.cat([column, from_end])]
    by_example = torch.cat([found.table[:, row, column], inside], 1)
    weights = Weights.from_coo(target, source, by_example.mean(0), (len(nodes), len(nodes)))
    nodes, effects = nodes.select(order), effects[:, order]
    mean = effects.mean(0)
    mean[-1] = found.total.mean()
    samples = None if wiring.crowded else _samples(nodes, effects, by_example, (target, source), found.total)
    return Assembled(nodes, mean, weights, samples)


def _samples(nodes: NodeTable, effects: Tensor, edges: Tensor, ends: tuple[Tensor, Tensor], total: Tensor) -> Samples:
    example, candidate = effects[:, :-1].nonzero(as_tuple=True)
    every = nodes.select(torch.arange(len(nodes) - 1))
    effect, edge = (one.to(dtype=torch.float32) for one in (effects[example, candidate], edges))
    return Samples(every, example, candidate, effect, *ends, edge, total)


def _units(site: CircuitSite) -> NodeTable:
    return table_of(site, torch.arange(site.units.count), None)


def _at_end(heads: NodeTable, end: str) -> NodeTable:
    """The ends of these heads."""
    return replace(heads, end=torch.full_like(heads.end, ENDS.index(end)))
