from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from layered_graphs import layered, normalised, power_series, reweighted
from whence.results.graph import Graph
from whence.results.influence import cumulative_shares, influence
from whence.results.kinds import of_kind

SEEDS = st.integers(min_value=0, max_value=10_000)


def _weights(graph: Graph) -> Tensor:
    out = torch.zeros(len(graph.nodes), dtype=torch.float64)
    out[-len(graph.logit_targets) :] = graph.logit_probabilities
    return out


@given(SEEDS, st.booleans())
@settings(max_examples=30, deadline=None)
def test_one_pass_from_the_targets_down_is_the_whole_series(seed: int, parity: bool) -> None:
    graph = layered(seed, parity=parity)

    torch.testing.assert_close(graph.influence(), power_series(graph.dense(), _weights(graph)), rtol=1e-12, atol=1e-14)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_it_does_not_depend_on_how_rows_are_grouped(seed: int) -> None:
    graph = layered(seed)

    torch.testing.assert_close(reweighted(graph, graph.dense()).influence(), graph.influence(), rtol=1e-12, atol=1e-14)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_all_influence_ends_at_nodes_without_a_row(seed: int) -> None:
    graph = layered(seed, density=1.0)
    ends = ~of_kind(graph.nodes, "feature", "output")

    assert graph.influence()[ends].sum().item() == pytest.approx(graph.logit_probabilities.sum().item())


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_scores_are_those_of_the_dense_formulas(seed: int) -> None:
    graph = layered(seed, parity=True)
    matrix, weights = graph.dense(), _weights(graph)
    errors, tokens = (torch.tensor([node.name == name for node in graph.nodes]) for name in ("mlp.error", "embed"))
    flow = power_series(matrix, weights)
    reached = flow + weights

    replacement = flow[tokens].sum() / (flow[tokens].sum() + flow[errors].sum())
    completeness = ((1 - normalised(matrix)[:, errors].sum(1)) * reached).sum() / reached.sum()

    assert graph.replacement_score() == pytest.approx(replacement.item(), rel=1e-12)
    assert graph.completeness_score() == pytest.approx(completeness.item(), rel=1e-12)


def test_in_whences_convention_completeness_counts_the_nodes_that_have_a_row() -> None:
    graph = layered(3)
    matrix, weights = graph.dense(), _weights(graph)
    errors = torch.tensor([node.name == "mlp.error" for node in graph.nodes])
    reached = (power_series(matrix, weights) + weights) * (matrix != 0).any(1)

    expected = ((1 - normalised(matrix)[:, errors].sum(1)) * reached).sum() / reached.sum()

    assert graph.completeness_score() == pytest.approx(expected.item(), rel=1e-12)


def test_constants_and_rest_are_in_neither_sum_of_the_replacement_score() -> None:
    graph = layered(1)
    flow = power_series(graph.dense(), _weights(graph))
    names = [node.name for node in graph.nodes]
    tokens = sum(float(flow[i]) for i, name in enumerate(names) if name in ("embed", "pos_embed"))
    errors = sum(float(flow[i]) for i, name in enumerate(names) if name == "mlp.error")

    assert graph.replacement_score() == pytest.approx(tokens / (tokens + errors))
    assert {"mlp", "rest", "bias"} < set(names)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_subgraph_counts_its_other_features_as_errors(seed: int) -> None:
    graph = layered(seed, parity=True)
    features = [node for node in graph.nodes if node.name == "mlp.feature"]
    chosen = features[::2]
    matrix = graph.dense()
    left_out = torch.tensor([node in features and node not in chosen for node in graph.nodes])
    errors = left_out | torch.tensor([node.name == "mlp.error" for node in graph.nodes])
    tokens = torch.tensor([node.name == "embed" for node in graph.nodes])
    matrix[left_out] = 0
    flow = power_series(matrix, _weights(graph))

    expected = flow[tokens].sum() / (flow[tokens].sum() + flow[errors].sum())

    assert graph.replacement_score(nodes=map(str, chosen)) == pytest.approx(expected.item(), rel=1e-12)
    assert graph.replacement_score(nodes=features) == pytest.approx(graph.replacement_score(), rel=1e-12)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_fewer_features_never_explain_more(seed: int) -> None:
    graph = layered(seed)
    features = [node for node in graph.nodes if node.name == "mlp.feature"]
    scores = [graph.replacement_score(nodes=features[:count]) for count in range(len(features) + 1)]

    assert all(0 <= score <= 1 for score in scores)
    assert all(less <= more + 1e-12 for less, more in pairwise(scores))


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.5, -0.5)])
def test_weights_that_are_zero_or_cancel_give_numbers(weights: tuple[float, float]) -> None:
    graph = layered(0)
    object.__setattr__(graph, "logit_probabilities", torch.tensor(weights))
    some = weights[0] != 0

    assert (graph.replacement_score() > 0, graph.completeness_score() > 0) == (some, some)
    assert graph.influence().isfinite().all()
    assert graph.cumulative_influence().isfinite().all()
    assert len(graph.prune().nodes) > 0


def test_a_graph_without_edges_has_scores_of_zero() -> None:
    graph = reweighted(layered(0), torch.zeros(len(layered(0).nodes), len(layered(0).nodes)))

    assert (graph.replacement_score(), graph.completeness_score()) == (0.0, 0.0)


def test_a_subgraph_is_given_by_features() -> None:
    with pytest.raises(ValueError, match="bias is no feature"):
        layered(0).replacement_score(nodes=["bias"])
    with pytest.raises(KeyError, match=r"2\.mlp\.feature:41@3 is not among these .* Near it are 2\.mlp\.feature"):
        layered(0).completeness_score(nodes=["2.mlp.feature:41@3"])


def test_an_edge_that_leads_down_is_named() -> None:
    graph = layered(0)
    matrix = graph.dense()
    high, low = graph.nodes.layer.argmax(), 0
    matrix[low, high] = 1.0

    with pytest.raises(ValueError, match=rf"edge {graph.nodes[int(high)]} -> {graph.nodes[low]} does not lead"):
        reweighted(graph, matrix).influence()


def test_float32_weights_give_the_influence_of_float64_ones() -> None:
    graph = layered(5, dtype=torch.float32)
    wide = reweighted(graph, graph.dense().double())

    torch.testing.assert_close(graph.influence(), wide.influence(), rtol=1e-5, atol=1e-7)


def test_a_cumulative_share_is_that_of_the_node_and_all_stronger_ones() -> None:
    scores = torch.tensor([1.0, 4.0, 0.0, 3.0], dtype=torch.float64)

    assert cumulative_shares(scores).tolist() == [1.0, 0.5, 1.0, 0.875]


def test_influence_of_a_target_itself_is_not_counted() -> None:
    graph = layered(2)

    assert not influence(graph.nodes, graph.weights, _weights(graph))[-2:].any()
