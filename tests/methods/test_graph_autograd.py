"""Whole graphs against autograd through the frozen model, in float32, on every family that claims graphs."""

import pytest
import torch

from families import GRAPH_FAMILIES, loaded, prompts
from graphs import BIASED, PARALLEL, WINDOWS, Edges, by_autograd, by_graph, cross_layer, furthest, together, transcoders
from whence.components.neurons import Neurons
from whence.methods.graph import attribution_graph
from whence.model.model import Model
from whence.results.graph import Graph

IDS = prompts(1, 7)
TOKENS = torch.tensor([5, 6])
EVERY = (*GRAPH_FAMILIES, *WINDOWS, *PARALLEL, *BIASED)


def graph_of(model: Model, units: object, **options: object) -> Graph:
    return attribution_graph(model, units, IDS, TOKENS, **options)


def without_bias(graph: Graph) -> Edges:
    """The rows of a graph less the column of constants, outputs left out of the sources."""
    edges = by_graph(graph)
    kept = [i for i, key in enumerate(edges.sources) if key != "bias" and not key.startswith("output")]
    return Edges(edges.targets, [edges.sources[i] for i in kept], edges.weights[:, kept], edges.values)


@pytest.mark.parametrize("name", EVERY)
def test_every_weight_of_a_transcoders_graph_is_the_frozen_models_gradient(name: str) -> None:
    model = loaded(name)
    units = transcoders(model)
    assert furthest(by_autograd(model, IDS, units), without_bias(graph_of(model, units))) < 1e-5


@pytest.mark.parametrize("name", GRAPH_FAMILIES)
def test_every_weight_of_a_cross_layer_graph_is_the_frozen_models_gradient(name: str) -> None:
    model = loaded(name)
    units = cross_layer(model, skip=True)
    assert furthest(by_autograd(model, IDS, units), without_bias(graph_of(model, units))) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi3"])
@pytest.mark.parametrize("gate", ["frozen", "derivative"])
def test_every_weight_of_a_graph_of_neurons_is_the_frozen_models_gradient(name: str, gate: str) -> None:
    model = loaded(name, torch.float64)
    ids = IDS[:, :3]
    graph = attribution_graph(model, Neurons(gate), ids, TOKENS)
    assert furthest(by_autograd(model, ids, Neurons(gate)), without_bias(graph)) < 1e-5


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_without_a_dictionary_are_constant_sources_with_their_routing_held(name: str) -> None:
    model = loaded(name)
    units = transcoders(model, layers=(0, 2))
    graph = without_bias(graph_of(model, units))
    chosen = [key for key in graph.sources if "moe.expert" in key]
    assert len(chosen) == 2 * IDS.shape[1]
    assert furthest(by_autograd(model, IDS, units), together(graph, "moe.expert", "moe")) < 1e-5


def test_a_prompt_that_begins_with_a_special_token_has_no_features_there() -> None:
    model = loaded("llama")
    ids = IDS.clone()
    ids[0, 0] = model.hf.config.bos_token_id
    units = transcoders(model)
    graph = attribution_graph(model, units, ids, TOKENS)
    assert "0.mlp@0" in map(str, graph.nodes)
    assert furthest(by_autograd(model, ids, units, bos=(0,)), without_bias(graph)) < 1e-5


def test_an_earlier_position_is_explained_as_if_the_prompt_ended_there() -> None:
    model = loaded("mistral window")
    units = transcoders(model)
    whole, short = graph_of(model, units, position=4), attribution_graph(model, units, IDS[:, :5], TOKENS)
    assert furthest(by_graph(short), by_graph(whole)) < 1e-5
