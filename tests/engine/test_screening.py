"""Total effects against the sum over all paths of the full graph."""

import pytest
import torch
from torch import Tensor

from families import loaded, prompts
from graphs import by_engine, cross_layer, linearized, transcoders
from whence.components.neurons import Neurons
from whence.engine.expansion_order import readable, strongest
from whence.engine.screening import total_effects

IDS, TOKENS = prompts(1, 5), (5, 6)


def all_paths(name: str, units: object) -> tuple[Tensor, Tensor]:
    """[token, source]: total effects as an inverse of the whole graph, and as the sweep finds them."""
    model = loaded(name, torch.float64)
    edges, linear = by_engine(model, IDS, units, TOKENS), linearized(model, IDS, units)
    nodes, n = readable(linear), linear.stream.nodes
    every = [(reader, torch.arange(len(linear.stream.groups[at]))) for at, reader in sorted(linear.readers.items())]
    values = torch.cat([reader.activation(each) for reader, each in every])
    slopes = torch.cat([reader.slope(each) for reader, each in every])
    step = torch.zeros(n, n, dtype=torch.float64)  # what a source adds to a feature, as a share of its activation
    step[nodes] = torch.where(values == 0, 0.0, slopes / values)[:, None] * edges.weights[: len(nodes)]
    paths = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - step)
    found = total_effects(linear, model.unembedding(torch.tensor(TOKENS)))
    return edges.weights[len(nodes) :] @ paths, found


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox", "cohere"])
@pytest.mark.parametrize("make", [lambda m: transcoders(m, skip=True), cross_layer])
def test_one_sweep_sums_over_all_paths(name: str, make) -> None:
    model = loaded(name, torch.float64)
    expected, found = all_paths(name, make(model))
    assert (found - expected).abs().max() < 1e-9 * expected.abs().max()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_neurons_pass_on_by_their_secant(name: str) -> None:
    expected, found = all_paths(name, Neurons())
    assert (found - expected).abs().max() < 1e-8 * expected.abs().max()


def test_the_strongest_are_chosen_in_the_order_of_their_numbers() -> None:
    model = loaded("llama", torch.float64)
    linear = linearized(model, IDS, transcoders(model))
    vectors = model.unembedding(torch.tensor(TOKENS))
    effects, nodes = total_effects(linear, vectors), readable(linear)
    sizes = 0.75 * effects[0].abs() + 0.25 * effects[1].abs()
    chosen = strongest(linear, vectors, torch.tensor([0.75, 0.25], dtype=torch.float64), 7)
    assert chosen.tolist() == sorted(nodes[sizes[nodes].argsort(descending=True)[:7]].tolist())
