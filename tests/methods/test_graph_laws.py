"""Every row of every graph sums to the number it explains, and that number is the model's own."""

import pytest
import torch

from families import GRAPH_FAMILIES, loaded, prompts
from graphs import BIASED, PARALLEL, WINDOWS, cross_layer, transcoders
from whence.components.neurons import Neurons
from whence.errors import LedgerError, UnsupportedModelError
from whence.methods.graph import attribution_graph
from whence.targets.custom import CustomTarget

IDS = prompts(1, 7)
EVERY = (*GRAPH_FAMILIES, *WINDOWS, *PARALLEL, *BIASED)


@pytest.mark.parametrize("name", EVERY)
def test_every_row_sums_to_what_it_explains(name: str) -> None:
    model = loaded(name)
    graph = attribution_graph(model, transcoders(model, skip=True), IDS, max_nodes=40)
    proof = graph.certificate
    sums = graph.dense()[proof.rows].double().sum(1)
    assert len(proof.rows) == 40 + len(graph.logit_targets)
    assert float(((sums - proof.value).abs() / proof.magnitude).max()) < 1e-5
    assert proof.worst < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "granite", "opt", "phi"])
def test_the_values_are_the_models_own_logits_and_pre_activations(name: str) -> None:
    model = loaded(name, torch.float64)
    units = cross_layer(model)
    graph = attribution_graph(model, units, IDS, torch.tensor([5, 6]))
    with torch.no_grad():
        logits = model.hf(input_ids=IDS, use_cache=False).logits[0, -1]
    cap = model.layout.softcap
    own = graph.certificate.value[-2:]
    assert torch.allclose(own if cap is None else cap * torch.tanh(own / cap), logits[[5, 6]], atol=1e-6)
    layer, _, feature = graph.active_features[graph.selected_features].T.tolist()
    bias = torch.stack([units.encoder(at, torch.tensor([f]))[1][0] for at, f in zip(layer, feature, strict=True)])
    activation = graph.activation_values[graph.selected_features].double()  # of a relu: what it was given
    assert torch.allclose(graph.certificate.value[:-2] + bias, activation, atol=1e-5)


def test_a_direction_of_ones_own_is_explained_like_a_token() -> None:
    model = loaded("llama", torch.float64)
    vectors = model.unembedding(torch.tensor([5, 6]))
    units = transcoders(model)
    difference = attribution_graph(model, units, IDS, [CustomTarget("5 - 6", 1.0, vectors[0] - vectors[1])]).dense()
    tokens = attribution_graph(model, units, IDS, torch.tensor([5, 6])).dense()
    assert torch.allclose(difference[-1, :-1], tokens[-2, :-2] - tokens[-1, :-2], atol=1e-7)


def test_a_model_that_does_not_follow_its_entry_is_refused() -> None:
    model = loaded("llama")
    units = transcoders(model)
    handle = model.layout.blocks[1].register_forward_hook(lambda _, __, output: _doubled(output))
    try:
        with pytest.raises(LedgerError, match="miss the model's own number"):
            attribution_graph(model, units, IDS, torch.tensor([5]))
    finally:
        handle.remove()


def _doubled(output: object) -> object:
    return (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_a_family_whose_attention_cannot_be_held_has_no_graphs(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no attribution graphs"):
        attribution_graph(loaded(name), Neurons(), IDS)
