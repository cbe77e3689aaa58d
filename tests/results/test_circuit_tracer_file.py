"""A graph that circuit-tracer itself made and saved (a random Llama of two layers), and its own answers about it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from whence.results.graph import Graph

DATA = Path(__file__).parent / "data" / "circuit-tracer"
ANSWERS: dict[str, Any] = json.loads((DATA / "answers.json").read_text())


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph.from_circuit_tracer(DATA / "graph.pt")


def test_its_nodes_and_tokens_are_read(graph: Graph) -> None:
    assert (len(graph.nodes), len(graph.nodes.of("mlp.error")), graph.vocab_size) == (41, 10, 61)
    assert graph.input_tokens.tolist() == [0, 54, 7, 21, 15]
    assert [target.vocab_idx for target in graph.logit_targets] == [5, 41]
    assert (graph.provenance["model"], graph.provenance["n_layers"]) == ("llama", 2)


def test_its_scores_and_shares_are_those_it_was_given(graph: Graph) -> None:
    assert graph.replacement_score() == pytest.approx(ANSWERS["replacement"], abs=1e-6)
    assert graph.completeness_score() == pytest.approx(ANSWERS["completeness"], abs=1e-6)
    shares = torch.tensor(ANSWERS["shares"], dtype=torch.float64)
    torch.testing.assert_close(graph.cumulative_influence(), shares, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pruned", ANSWERS["pruned"], ids=lambda pruned: f"{pruned['nodes']}")
def test_pruning_keeps_the_nodes_and_edges_that_it_kept(graph: Graph, pruned: dict[str, Any]) -> None:
    small = graph.prune(pruned["nodes"], pruned["edges"])
    kept = [graph.nodes.find(node) for node in small.nodes]
    rows, columns, _ = small.weights.coo()

    assert kept == pruned["kept"]
    assert [[kept[row], kept[column]] for row, column in zip(rows, columns, strict=True)] == pruned["kept_edges"]


def test_the_document_for_viewers_is_the_one_it_wrote_but_for_labels_of_errors(graph: Graph) -> None:
    ours, theirs = graph.prune().to_json(slug="slug", legacy_ids=True), ANSWERS["document"]
    labelled = {node["node_id"] for node in ours["nodes"] if node["feature_type"] == "mlp reconstruction error"}

    assert ours["links"] == theirs["links"]
    assert ours["qParams"] == theirs["qParams"]
    assert [node["node_id"] for node in ours["nodes"]] == [node["node_id"] for node in theirs["nodes"]]
    for mine, other in zip(ours["nodes"], theirs["nodes"], strict=True):
        same = set(mine) - {"influence"} - ({"clerp"} if mine["node_id"] in labelled else set())
        assert {name: mine[name] for name in same} == {name: other[name] for name in same}
        assert mine["influence"] == pytest.approx(other["influence"], abs=1e-6)
    assert {name for name in ours["metadata"] if ours["metadata"][name] != theirs["metadata"].get(name)} == {
        *("scan", "info")
    }
