from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layered_graphs import VOCABULARY, layered
from whence.results.graph import Graph
from whence.results.keys import LogitTarget

SEEDS = st.integers(min_value=0, max_value=1000)


def _edges(graph: Graph) -> dict[tuple[str, str], float]:
    keys = [str(node) for node in graph.nodes]
    rows, columns, values = graph.weights.coo()
    return {
        (keys[source], keys[target]): weight
        for source, target, weight in zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
    }


@given(SEEDS, SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_mean_matches_nodes_by_key_and_counts_what_is_absent_as_zero(one: int, other: int) -> None:
    graphs = [layered(one), layered(other)]
    first, second = map(_edges, graphs)

    mean = Graph.mean(graphs)

    expected = {edge: (first.get(edge, 0.0) + second.get(edge, 0.0)) / 2 for edge in {*first, *second}}
    assert _edges(mean) == pytest.approx({edge: weight for edge, weight in expected.items() if weight})
    assert mean.counts is not None
    counts = _edges(replace(mean, weights=mean.counts))
    assert counts == {edge: (edge in first) + (edge in second) for edge in {*first, *second}}


@given(SEEDS, SEEDS)
@settings(max_examples=15, deadline=None)
def test_a_difference_is_the_first_minus_the_second(one: int, other: int) -> None:
    first, second = _edges(layered(one)), _edges(layered(other))

    found = _edges(layered(one).diff(layered(other)))

    assert found == {
        edge: first.get(edge, 0.0) - second.get(edge, 0.0)
        for edge in {*first, *second}
        if first.get(edge, 0.0) != second.get(edge, 0.0)
    }


def test_the_mean_of_a_graph_with_itself_is_the_graph() -> None:
    graph = layered(1)
    mean = Graph.mean([graph, graph])

    assert [*mean.nodes] == [*graph.nodes]
    assert torch.equal(mean.dense(), graph.dense())
    assert torch.equal(mean.activation_values, graph.activation_values)
    assert torch.equal(mean.selected_features, graph.selected_features)
    assert mean.replacement_score() == graph.replacement_score()
    assert (mean.logit_targets, mean.provenance["convention"]) == (graph.logit_targets, "whence")


def test_a_graph_minus_itself_has_no_edges() -> None:
    assert layered(1).diff(layered(1)).weights.nnz == 0


def test_nodes_of_both_stand_in_a_graphs_order() -> None:
    mean = Graph.mean([layered(1), layered(2)])
    names = [node.name for node in mean.nodes]
    features = [(node.layer, node.position, node.index) for node in mean.nodes if node.name == "mlp.feature"]

    assert features == sorted(features)
    assert list(dict.fromkeys(name for name in names if name not in ("mlp", "mlp.error"))) == [
        *("mlp.feature", "embed", "pos_embed", "rest", "bias", "output"),
    ]
    assert mean.active_features[mean.selected_features].tolist() == [[at[0], at[1], at[2]] for at in features]


def test_tokens_and_targets_that_differ_are_told_apart() -> None:
    other = layered(2)
    tokens = other.input_tokens.clone()
    tokens[2] = 40
    other = replace(other, input_tokens=tokens, token_texts=(*other.token_texts[:2], " sum", *other.token_texts[3:]))

    mean = Graph.mean([layered(1), other])

    assert mean.input_tokens.tolist() == [0, 1, -1, 3]
    assert mean.token_texts[2] == " capital | sum"
    assert mean.provenance["mean"] == [layered(1).prompt, other.prompt]
    probabilities = (layered(1).logit_probabilities + other.logit_probabilities) / 2
    torch.testing.assert_close(mean.logit_probabilities, probabilities, rtol=1e-15, atol=0)


def test_graphs_that_share_no_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        layered(0).diff(layered(0, positions=5))
    with pytest.raises(ValueError, match="vocabularies"):
        layered(0).diff(replace(layered(0), vocab_size=7))
    with pytest.raises(ValueError, match="mean of no graphs"):
        Graph.mean([])
    one, other = (
        replace(layered(0), logit_targets=(LogitTarget(" a", 10), LogitTarget(name, VOCABULARY))) for name in "xy"
    )
    with pytest.raises(ValueError, match=f"virtual target {VOCABULARY} is 'x' in one graph and 'y' in another"):
        one.diff(other)


def test_graphs_of_other_units_are_refused() -> None:
    features = layered(3)
    names = tuple("mlp.neuron" if name == "mlp.feature" else name for name in features.nodes.names)
    neurons = replace(features, nodes=replace(features.nodes, names=names))
    with pytest.raises(ValueError, match=r"different units, \['mlp.feature', 'mlp.neuron'\]"):
        features.diff(neurons)
