"""What a graph says of itself, on every family that claims graphs: influence, scores, pruning and every view."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, loaded, prompts
from graphs import PARALLEL, transcoders
from whence.components.neurons import Neurons
from whence.methods.graph import attribution_graph
from whence.results.graph import Graph
from whence.results.graph_schema import problems

IDS = prompts(1, 5)


def power_series(graph: Graph) -> Tensor:
    """w Â + w Â² + …, on the dense matrix, until a term is 0."""
    matrix = graph.dense().double().abs()
    matrix = matrix / matrix.sum(1, keepdim=True).clamp_min(1e-10)
    term = torch.zeros(len(graph.nodes), dtype=torch.float64)
    term[graph.nodes.of("output")] = graph.logit_probabilities.double().abs()
    total = term = term @ matrix
    while term.any():
        term = term @ matrix
        total = total + term
    return total


@pytest.mark.parametrize("units", ["transcoders", "neurons"])
@pytest.mark.parametrize("name", [*GRAPH_FAMILIES, *PARALLEL])
def test_influence_follows_every_edge_and_all_views_open(name: str, units: str, tmp_path: Path) -> None:
    model = loaded(name)
    graph = attribution_graph(model, transcoders(model) if units == "transcoders" else None, IDS, torch.tensor([5, 6]))
    flow = power_series(graph)

    torch.testing.assert_close(graph.influence(), flow, rtol=1e-4, atol=1e-6 * float(flow.max()))
    small = graph.prune()
    assert 0 < len(small.nodes) <= len(graph.nodes)
    assert small.edges(1)[0].weight != 0
    assert "replacement" in str(graph)
    assert "rows add up" in graph._repr_html_()
    assert graph.to_html(tmp_path / "graph.html").stat().st_size > 0
    assert problems(small.to_json()) == []


@pytest.mark.parametrize("name", ["jamba", "falcon_h1"])
def test_a_state_space_feeds_the_mlp_of_its_own_layer(name: str) -> None:
    graph = attribution_graph(loaded(name), Neurons("frozen"), IDS, torch.tensor([5]))
    ends = {(edge.source.name, edge.source.layer) for edge in graph.into("2.mlp.neuron:3@4")}

    assert ("ssm", 2) in ends
