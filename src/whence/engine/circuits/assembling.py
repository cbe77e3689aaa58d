"""The plain data of a circuit, from nodes and edges by example: means, thresholds on them, and what each example said.

Cost: a sort of the edges. Knows nothing of models.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from whence.engine.circuits.discovery import EdgeEntries
from whence.engine.circuits.nodes import Chosen, Gathered, joined, table_of
from whence.results.circuit_samples import Samples
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


@dataclass(frozen=True, eq=False)
class Assembled:
    """What a circuit is made of."""

    nodes: NodeTable
    effects: Float64[Tensor, " node"]
    weights: Weights
    samples: Samples | None


def assemble(
    gathered: list[Gathered],
    chosen: list[Chosen],
    edges: EdgeEntries | None,
    total: Tensor,
    threshold: float,
    slotted: bool,
) -> Assembled:
    """The parts of a circuit.

    Args:
        gathered: effects at every site.
        chosen: the nodes of every site.
        edges: by example; None where they were not asked for.
        total: the total effect of each example.
        threshold: what the mean of an edge must exceed in size.
        slotted: whether positions are told apart.
    """
    metric = NodeTable.from_nodes([Node("metric")])
    nodes = joined([*(table_of(one.site, one.unit, one.slot if slotted else None) for one in chosen), metric])
    effects = torch.cat([*(one.effect for one in chosen), total.mean()[None]]).double()
    target, source, by_example = _edges(edges, len(total), len(nodes), threshold)
    mean = by_example.mean(0)
    kept = mean.abs() > threshold
    weights = Weights.from_coo(target[kept], source[kept], mean[kept], (len(nodes), len(nodes)))
    samples = _samples(gathered, slotted, target, source, by_example, total)
    return Assembled(nodes, effects, weights, samples)


def _edges(edges: EdgeEntries | None, examples: int, nodes: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, sources and weights [example, edge] of the edges that exceed the threshold in some example.

    No other edge can exceed it in a mean, over these examples or over any drawn from them.
    """
    if edges is None or not len(edges.weight):
        nothing = torch.zeros(0, dtype=torch.long)
        return nothing, nothing, torch.zeros(examples, 0, dtype=torch.float64)
    entry, place = ((edges.target * nodes + edges.source) * examples + edges.example).unique(return_inverse=True)
    weight = torch.zeros(len(entry), dtype=torch.float64).index_add(0, place, edges.weight)
    pair, column = (entry // examples).unique_consecutive(return_inverse=True)
    largest = torch.zeros(len(pair), dtype=torch.float64).scatter_reduce(0, column, weight.abs(), "amax")
    kept = largest > threshold
    count = int(kept.sum())
    column = torch.where(kept, kept.cumsum(0) - 1, -1)[column]
    here = column >= 0
    by_example = torch.zeros(examples, count, dtype=torch.float64)
    by_example[entry[here] % examples, column[here]] = weight[here]
    return pair[kept] // nodes, pair[kept] % nodes, by_example


def _samples(
    gathered: list[Gathered], slotted: bool, target: Tensor, source: Tensor, by_example: Tensor, total: Tensor
) -> Samples:
    tables: list[NodeTable] = []
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    first = 0
    for one in gathered:
        entries, units = one.entries(), one.site.units.count
        candidate, place = (entries.slot * units + entries.unit).unique(return_inverse=True)
        tables.append(table_of(one.site, candidate % units, candidate // units if slotted else None))
        columns.append((entries.example, place + first, entries.effect))
        first += len(candidate)
    example, candidate, effect = (torch.cat(column) for column in zip(*columns, strict=True))
    return Samples(
        candidates=joined(tables),
        example=example,
        candidate=candidate,
        effect=effect.float(),
        target=target,
        source=source,
        edge=by_example.float(),
        total=total.double(),
    )
