"""Graphs of several prompts on one set of nodes: their difference and their mean.

Nodes are matched by key, so the prompts are of one template: the same part at the same position is the same node. A
node or an edge that a graph does not have counts as 0. Cost: all edges of all graphs at once. It knows nothing of what
the prompts say.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.graph_data import AnyGraph, GraphData
from whence.results.keys import LogitTarget
from whence.results.kinds import of_kind
from whence.results.nodes import NodeTable
from whence.results.union import union
from whence.results.weights import Weights

_SECTION = {"embed": 2, "pos_embed": 3, "rest": 4, "bias": 5, "output": 6}


def difference(graph: AnyGraph, other: AnyGraph) -> AnyGraph:
    """The first graph minus the second: weights and activations; the targets' weights are the mean of both.

    Args:
        graph: The first.
        other: The second.

    Raises:
        ValueError: Graphs of different lengths, vocabularies or virtual targets.

    Example:
        >>> difference(texas, ohio).edges(5)  # doctest: +SKIP
    """
    said = {"difference": [graph.prompt, other.prompt]}
    return _combined([graph, other], [1.0, -1.0], f"{graph.prompt} − {other.prompt}", said)


def mean(graphs: Sequence[AnyGraph]) -> AnyGraph:
    """The mean, with the number of graphs that have each edge.

    Args:
        graphs: At least one.

    Raises:
        ValueError: No graphs, or graphs of different lengths, vocabularies or virtual targets.

    Example:
        >>> mean([texas, ohio]).counts.nnz  # doctest: +SKIP
        4021
    """
    if not graphs:
        raise ValueError("mean of no graphs: give at least one.")
    said = {"mean": [graph.prompt for graph in graphs]}
    return _combined(graphs, [1 / len(graphs)] * len(graphs), f"mean of {len(graphs)} prompts", said)


def _combined(graphs: Sequence[AnyGraph], signs: list[float], prompt: str, said: dict[str, Any]) -> AnyGraph:
    targets = _check(graphs)
    indices = [target.vocab_idx for target in targets]
    nodes, places = union([graph.nodes for graph in graphs], lambda nodes: _order(nodes, indices))
    moved = [graph.weights.mapped(place, len(nodes)) for graph, place in zip(graphs, places, strict=True)]
    active, values, selected = _features(graphs, signs, nodes)
    return type(graphs[0])(
        nodes=nodes,
        weights=added(moved, signs),
        logit_targets=targets,
        logit_probabilities=_probabilities(graphs, targets),
        vocab_size=graphs[0].vocab_size,
        prompt=prompt,
        input_tokens=_common(torch.stack([graph.input_tokens for graph in graphs])),
        token_texts=tuple(_one(texts) for texts in zip(*(graph.token_texts for graph in graphs), strict=True)),
        active_features=active,
        activation_values=values,
        selected_features=selected,
        provenance=_shared(graphs) | said,
        counts=added([part.changed(lambda block: (block.values != 0).float()) for part in moved], [1.0] * len(moved)),
    )


def _check(graphs: Sequence[GraphData]) -> tuple[LogitTarget, ...]:
    """All targets, in the order in which they first occur."""
    for name, sizes in (
        ("lengths", {len(graph.input_tokens) for graph in graphs}),
        ("vocabularies", {graph.vocab_size for graph in graphs}),
    ):
        if len(sizes) > 1:
            raise ValueError(f"graphs of different {name}, {sorted(sizes)}, have no nodes in common to be matched.")
    units = {name for graph in graphs for name in _units(graph)}
    if len(units) > 1:
        raise ValueError(f"graphs of different units, {sorted(units)}, have no features in common to be matched.")
    found: dict[int, LogitTarget] = {}
    for target in (target for graph in graphs for target in graph.logit_targets):
        known = found.setdefault(target.vocab_idx, target)
        if target.vocab_idx >= graphs[0].vocab_size and known != target:
            raise ValueError(
                f"virtual target {target.vocab_idx} is {known.token_str!r} in one graph and {target.token_str!r} in "
                "another. Give the directions in the same order to each."
            )
    return tuple(found.values())


def _order(nodes: NodeTable, targets: list[int]) -> Int[Tensor, " node"]:
    """A graph's order: features by layer, position, feature; constants by layer, writer, position; then the others."""
    features = of_kind(nodes, "feature")
    sections = torch.tensor([_SECTION.get(name, 1) for name in nodes.names])[nodes.name]
    sections[features] = 0
    index = nodes.index.clone()
    outputs = nodes.of("output")
    index[outputs] = torch.tensor([targets.index(i) for i in index[outputs].tolist()], dtype=torch.int64)
    alphabet = torch.tensor([sorted(nodes.names).index(name) for name in nodes.names])[nodes.name]
    writer = torch.where(features, torch.zeros_like(index), alphabet)
    order = torch.arange(len(nodes))
    for key in (nodes.end, nodes.inner, index, nodes.position, writer, nodes.layer, sections):  # the last decides first
        order = order[key[order].argsort(stable=True)]
    return order


def added(parts: list[Weights], factors: list[float]) -> Weights:
    """The sum of weights on the same nodes.

    Args:
        parts: At least one.
        factors: What each is multiplied by.
    """
    edges = [part.coo() for part in parts]
    rows, columns = (torch.cat([edge[end] for edge in edges]) for end in (0, 1))
    values = torch.cat([edge[2] * factor for edge, factor in zip(edges, factors, strict=True)])
    return Weights.from_coo(rows, columns, values, parts[0].shape)


def _features(
    graphs: Sequence[GraphData], factors: list[float], nodes: NodeTable
) -> tuple[Int[Tensor, "active 3"], Float[Tensor, " active"], Int[Tensor, " selected"]]:
    """All active features, their combined activations, and which of them are nodes."""
    every = torch.cat([graph.active_features for graph in graphs])
    active, inverse = every.unique(dim=0, return_inverse=True)
    weighted = [graph.activation_values * factor for graph, factor in zip(graphs, factors, strict=True)]
    values = torch.cat(weighted)
    combined = values.new_zeros(len(active)).index_add_(0, inverse, values)
    chosen = torch.cat([graph.active_features[graph.selected_features] for graph in graphs])
    selected = torch.cat([active, chosen]).unique(dim=0, return_inverse=True)[1][len(active) :].unique()
    return active, combined, selected


def _probabilities(graphs: Sequence[GraphData], targets: tuple[LogitTarget, ...]) -> Float[Tensor, " target"]:
    out = graphs[0].logit_probabilities.new_zeros(len(targets))
    row = {target.vocab_idx: place for place, target in enumerate(targets)}
    for graph in graphs:
        out[[row[index] for index in graph.vocab_indices]] += graph.logit_probabilities / len(graphs)
    return out


def _common(tokens: Int[Tensor, "graph pos"]) -> Int[Tensor, " pos"]:
    """The tokens that all prompts have, −1 where they differ."""
    return torch.where((tokens == tokens[0]).all(0), tokens[0], -torch.ones_like(tokens[0]))


def _one(texts: tuple[str, ...]) -> str:
    distinct = dict.fromkeys(texts)
    return reduce(lambda left, right: f"{left} |{right}", distinct)


def _shared(graphs: Sequence[GraphData]) -> dict[str, Any]:
    """What all graphs say of where they come from."""
    first = graphs[0].provenance
    return {name: value for name, value in first.items() if all(g.provenance.get(name) == value for g in graphs)}


def _units(graph: GraphData) -> set[str]:
    """The names of the nodes that are features."""
    chosen = of_kind(graph.nodes, "feature")
    return {graph.nodes.names[i] for i in graph.nodes.name[chosen].unique().tolist()}
