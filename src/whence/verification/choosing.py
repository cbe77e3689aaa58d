"""Which nodes of a graph can be removed from its model, and which are; and whether model and dictionary are its own.

Removable is what the model writes in one place: features, neurons, errors, whole writes, embeddings. Cost: one look at
every edge. Nothing is run here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.interventions.session import as_set
from whence.model.model import Model
from whence.results.graph import Graph
from whence.results.keys import Node


def units_of_graph(graph: Graph, model: Model, dictionary: Any) -> DictionarySet | Neurons:
    """What the graph's features are, once it is seen to be of this model and dictionary.

    Raises:
        ValueError: it is of another model or dictionary, a shard, or its rows are estimates.
    """
    if graph.vocab_size != model.vocab_size:
        raise ValueError(f"the graph is of a model with {graph.vocab_size} logits; this one has {model.vocab_size}")
    shard = graph.provenance.get("shard")
    if shard is not None:
        raise ValueError(f"the graph is shard {shard[0]} of {shard[1]}, with part of the rows; Graph.merge them first")
    if dictionary is not None and not isinstance(dictionary, Neurons):
        if len(graph.nodes.of("mlp.neuron")):
            raise ValueError("the graph is of neurons; leave dictionary= out")
        found = as_set(dictionary, model)
        assert found is not None
        _refuse_other(graph, found)
        return found
    if len(graph.nodes.of("mlp.feature", "mlp.error")):
        raise ValueError("the graph is of a dictionary's features; pass that dictionary as dictionary=")
    stated = graph.provenance.get("dictionary")
    if isinstance(stated, dict) and stated.get("gate") == "derivative":
        raise ValueError("rows of Neurons(gate='derivative') are first-order estimates; verify a gate='frozen' graph")
    return Neurons()


def _refuse_other(graph: Graph, dictionary: DictionarySet) -> None:
    stated = graph.provenance.get("dictionary")
    wanted = stated.get("fingerprint") if isinstance(stated, dict) else None
    if not isinstance(stated, dict) or wanted is None:
        return
    now = dictionary.describe()["fingerprint"]
    if now != wanted:
        raise ValueError(
            f"the dictionary has fingerprint {now}, and the one the graph was made with {wanted}; pass that one as "
            f"dictionary= (the graph names its source {stated.get('source')!r})"
        )


def chosen_nodes(graph: Graph, k: int | None, nodes: Iterable[Node | str] | None) -> Int[Tensor, " node"]:
    """The nodes to remove: those named, or the k with the largest sum of |weight|, strongest first.

    Raises:
        ValueError: a node that cannot be removed, or none at all.
        KeyError: a node the graph lacks.
    """
    removable = _removable(graph)
    if nodes is not None:
        chosen = torch.tensor([graph.nodes.find(node) for node in nodes], dtype=torch.long)
        _refuse_fixed(graph, chosen[~removable[chosen]])
        if not len(chosen):
            raise ValueError("nodes= is empty, and so nothing would be verified; leave it out or name some")
        return chosen
    if isinstance(k, bool) or (k is not None and k < 1):
        raise ValueError(f"k={k!r}; it is how many nodes to remove, at least 1, or None for all")
    strength = torch.zeros(len(graph.nodes))
    for block in graph.weights:
        strength.index_add_(0, block.columns.cpu(), block.values.abs().sum(0).float().cpu())
    order = strength.masked_fill(~removable, -1).argsort(descending=True, stable=True)
    return order[: int(removable.sum())][:k]


def _removable(graph: Graph) -> Bool[Tensor, " node"]:
    """True for nodes that are one write of the model."""
    found = torch.ones(len(graph.nodes), dtype=torch.bool)
    found[graph.nodes.of("rest", "bias", "output")] = False
    if graph.provenance.get("convention") == "circuit-tracer":
        errors = graph.nodes.of("mlp.error")
        left_out = torch.tensor(graph.provenance.get("bos", [0]))
        found[errors[torch.isin(graph.nodes.position[errors], left_out)]] = False
    return found


def _refuse_fixed(graph: Graph, fixed: Int[Tensor, " node"]) -> None:
    reasons = {"output": "it is what the graph explains", "mlp.error": "the graph leaves MLPs at this position out"}
    for node in (graph.nodes[i] for i in fixed.tolist()):
        why = reasons.get(node.name, "it stands for many writes of the model at once")
        raise ValueError(f"{node} cannot be removed: {why}. Name features, neurons, errors, whole writes or embeddings")


def largest_weight(graph: Graph) -> float:
    """The largest |weight| out of any node that can be removed."""
    removable = _removable(graph)
    found = [block.values.cpu()[:, removable[block.columns.cpu()]].abs().flatten() for block in graph.weights]
    values = torch.cat(found) if found else torch.zeros(0)
    return float(values.max()) if len(values) else 0.0
