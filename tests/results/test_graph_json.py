import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layered_graphs import layered, reweighted
from whence.results.certificate import Certificate
from whence.results.graph import Graph
from whence.results.graph_schema import problems
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

SEEDS = st.integers(min_value=0, max_value=1000)


@given(SEEDS, st.booleans())
@settings(max_examples=15, deadline=None)
def test_the_document_fits_its_schema_and_names_everything_once(seed: int, parity: bool) -> None:
    graph = layered(seed, parity=parity).prune()

    assert problems(json.loads(json.dumps(graph.to_json()))) == []


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_links_are_the_edges(seed: int) -> None:
    graph = layered(seed)
    document = graph.to_json()
    place = {node["node_id"]: row for row, node in enumerate(document["nodes"])}
    matrix = torch.zeros(graph.weights.shape, dtype=torch.float64)
    for link in document["links"]:
        matrix[place[link["target"]], place[link["source"]]] = link["weight"]

    assert torch.equal(matrix, graph.dense())


def _found(graph: Graph, key: str, **options: Any) -> dict[str, Any]:
    return graph.to_json(**options)["nodes"][graph.nodes.find(key)]


def _one_feature(feature: int, layer: int) -> Graph:
    """A graph of layer 5 and up in which a feature of layer 0 and an error of that layer may have one old id."""
    nodes = [
        *(Node("mlp.feature", layer, feature, position=3), Node("mlp.error", 5, position=3)),
        *(Node("embed", index=7, position=position) for position in range(4)),
        Node("output", index=10, position=3),
    ]
    graph = layered(0, logits=1)
    matrix = torch.zeros(7, 7, dtype=torch.float64)
    matrix[6, :6] = 1.0
    return reweighted(replace(graph, nodes=NodeTable.from_nodes(nodes), **_sized(feature, layer)), matrix)


def _sized(feature: int, layer: int) -> dict[str, Any]:
    return {
        "weights": Weights((7, 7), ()),
        "active_features": torch.tensor([[layer, 3, feature]]),
        "selected_features": torch.tensor([0]),
        "activation_values": torch.tensor([2.5]),
        "certificate": Certificate(),
    }


def test_each_kind_of_node_is_named_as_viewers_expect() -> None:
    graph = _one_feature(17, 2)
    feature, error, token, logit = (
        _found(graph, key) for key in ("2.mlp.feature:17@3", "5.mlp.error@3", "embed:7@1", "output:10@3")
    )

    assert feature | {"influence": 0} == {
        **{"node_id": "2_17_3", "feature": (2 + 17) * (2 + 17 + 1) // 2 + 17, "layer": "2", "ctx_idx": 3},
        **{"feature_type": "cross layer transcoder", "jsNodeId": "2_17-0", "clerp": "", "activation": 2.5},
        **{"token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "influence": 0},
    }
    assert (error["node_id"], error["feature"], error["jsNodeId"]) == ("5_-1_3", -1, "5_3-0")
    assert error["feature_type"] == "mlp reconstruction error"
    assert (token["node_id"], token["feature"], token["layer"], token["jsNodeId"]) == ("E_7_1", 1, "E", "E_7-1")
    assert (logit["node_id"], logit["layer"], logit["jsNodeId"]) == ("7_10_3", "7", "L_10-3")
    probability = graph.logit_probabilities[0].item()
    assert logit["clerp"] == f'Output " word10" (p={probability:.3f})'
    assert (logit["is_target_logit"], logit["token_prob"]) == (True, probability)


def test_old_error_ids_collide_and_new_ones_do_not() -> None:
    graph = _one_feature(feature=5, layer=0)

    assert problems(graph.to_json()) == []
    assert problems(graph.to_json(legacy_ids=True)) == ["nodes: '0_5_3' names more than one"]


def test_constants_are_of_type_bias() -> None:
    graph = layered(0)
    kinds = {node["feature_type"] for node in (_found(graph, key) for key in ("bias", "0.mlp@0", "2.mlp@0"))}

    assert kinds == {"bias"}


def test_influence_is_the_cumulative_share_of_the_unpruned_graph() -> None:
    graph = layered(0)
    pruned = graph.prune()
    shares = graph.cumulative_influence()

    for node, written in zip(pruned.nodes, pruned.to_json()["nodes"], strict=True):
        assert written["influence"] == (None if node.name == "output" else shares[graph.nodes.find(node)].item())


def test_the_file_holds_what_is_returned(tmp_path: Path) -> None:
    document = layered(0).prune(0.7).to_json(tmp_path / "graph.json", slug="texas")

    assert json.loads((tmp_path / "graph.json").read_text()) == document
    assert (document["metadata"]["slug"], document["metadata"]["node_threshold"]) == ("texas", 0.7)
    assert layered(0).to_json()["metadata"]["slug"] == "the-capital-of"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("links"), "document: lacks 'links'"),
        (lambda d: d["metadata"].pop("scan"), "metadata: lacks 'scan'"),
        (lambda d: d["nodes"][0].update(layer=3), "nodes[0].layer: 3 is not string"),
        (lambda d: d["nodes"][0].update(feature_type="mlp"), "nodes[0].feature_type: 'mlp' is none of"),
        (lambda d: d["nodes"][1].update(ctx_idx=-1), "nodes[1].ctx_idx: -1 is less than 0"),
        (lambda d: d["nodes"][1].update(token_prob=True), "nodes[1].token_prob: True is not number"),
        (lambda d: d["links"][0].update(source="x"), "links[0].source: no node 'x'"),
        (lambda d: d.update(nodes={}), "nodes: {} is not array"),
    ],
)
def test_a_document_that_does_not_fit_is_told_where(change: Any, said: str) -> None:
    document = layered(0).to_json()
    change(document)

    assert problems(document)[0].startswith(said)


def test_the_layer_of_a_target_counts_all_layers_of_the_model_where_they_are_known() -> None:
    graph = layered(0)
    known = replace(graph, provenance=graph.provenance | {"n_layers": 12})

    assert [node["layer"] for node in known.to_json()["nodes"] if node["feature_type"] == "logit"] == ["13", "13"]
    assert [node["layer"] for node in graph.to_json()["nodes"] if node["feature_type"] == "logit"] == ["4", "4"]
