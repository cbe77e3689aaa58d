"""MIB's edge files: a file by hand, and both ways there and back."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from circuits import random_circuit, table
from whence.errors import FileFormatError
from whence.results.circuit_data import CircuitData
from whence.results.circuit_mib_keys import Sizes, key_of, name_of
from whence.results.keys import Node
from whence.results.weights import Weights

CFG: dict[str, Any] = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}


def _file(parallel: bool = False, node_scores: bool = True) -> dict[str, Any]:
    """Every edge with a score of its own, about a third of them in the circuit."""
    order = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    random = torch.Generator().manual_seed(0)
    edges: dict[str, dict[str, Any]] = {}
    for place, target in enumerate(order):
        for source in order[:place]:
            beside = source[0] == target[0] == "a" and source[1] == target[1]
            same = source[0] == "a" and target == f"m{source[1]}"
            if beside or (parallel and same):
                continue
            for end in ("<q>", "<k>", "<v>") if target[0] == "a" else ("",):
                score = float(torch.randn((), generator=random, dtype=torch.float64))
                edges[f"{source}->{target}{end}"] = {"score": score, "in_graph": score > 0.4}
    ends = {name.partition("<")[0] for edge, said in edges.items() if said["in_graph"] for name in edge.split("->")}
    nodes: dict[str, dict[str, Any]] = {name: {"in_graph": name in ends or name == "logits"} for name in order}
    for place, said in enumerate(nodes.values()):
        said |= {"score": place / 7} if node_scores else {}
    return {"cfg": CFG | {"parallel_attn_mlp": parallel}, "nodes": nodes, "edges": edges}


def _written(tmp_path: Path, said: object) -> Path:
    (tmp_path / "given.json").write_text(json.dumps(said), encoding="utf-8")
    return tmp_path / "given.json"


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("node_scores", [False, True])
def test_a_file_comes_back_as_it_was(tmp_path: Path, parallel: bool, node_scores: bool) -> None:
    said = _file(parallel, node_scores)
    path = _written(tmp_path, said)
    scores, circuit = CircuitData.from_mib(path), CircuitData.from_mib(path, selected=True)

    assert json.loads(circuit.to_mib(tmp_path / "back.json", scores=scores).read_text()) == said


def test_a_circuit_comes_back_as_it_was(tmp_path: Path) -> None:
    circuit = CircuitData.from_mib(_written(tmp_path, _file()), selected=True)
    back = CircuitData.from_mib(circuit.to_mib(tmp_path / "back.json"), selected=True)

    assert [*back.nodes] == [*circuit.nodes]
    assert torch.equal(back.dense(), circuit.dense())
    assert torch.equal(back.effects, circuit.effects)


def test_edges_keep_their_scores_and_ends_lead_to_their_heads(tmp_path: Path) -> None:
    said = _file()
    circuit = CircuitData.from_mib(_written(tmp_path, said))
    weights = {str(edge.edge): edge.weight for edge in circuit.edges(circuit.weights.nnz)}
    reads = sum(weights[f"{key_of(source)} -> 1.attn.head:0.q"] for source in ("input", "a0.h0", "a0.h1", "m0"))

    assert weights["0.attn.head:1 -> 1.attn.head:0.k"] == said["edges"]["a0.h1->a1.h0<k>"]["score"]
    assert weights["embed -> metric"] == said["edges"]["input->logits"]["score"]
    assert weights["1.attn.head:0.q -> 1.attn.head:0"] == pytest.approx(reads, rel=1e-12)
    assert circuit.effects[circuit.nodes.find("1.attn.head:0.q")] == pytest.approx(reads, rel=1e-12)
    assert circuit.effects[circuit.nodes.find("0.mlp")] == said["nodes"]["m0"]["score"]
    assert len(weights) == len(said["edges"]) + 2 * 2 * 3


def test_without_scores_of_nodes_effects_are_what_leaves_them(tmp_path: Path) -> None:
    circuit = CircuitData.from_mib(_written(tmp_path, _file(node_scores=False)))

    assert circuit.explained[circuit.nodes.find("embed")] == 1
    assert circuit.total == pytest.approx(sum(edge.weight for edge in circuit.into("metric")))


def test_heads_stand_behind_their_ends_and_layers_in_order(tmp_path: Path) -> None:
    keys = [str(node) for node in CircuitData.from_mib(_written(tmp_path, _file())).nodes]

    assert keys[:6] == ["embed", *(f"0.attn.head:0{end}" for end in (".q", ".k", ".v", "")), "0.attn.head:1.q"]
    assert keys[-3:] == ["1.attn.head:1", "1.mlp", "metric"]


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (3, 2), (12, 12)])
@pytest.mark.parametrize("parallel", [False, True])
def test_an_architecture_has_as_many_edges_as_it_can(layers: int, heads: int, parallel: bool) -> None:
    edges = [*Sizes(layers, heads, parallel, 8).edges()]
    before = [1 + layer * (heads + 1) for layer in range(layers + 1)]
    read = sum(3 * heads * n + n + (0 if parallel else heads) for n in before[:-1])

    assert len(edges) == len(set(edges)) == read + before[-1]
    assert all(small < large for small, large in pairwise(before))


@pytest.mark.parametrize("name", ["input", "logits", "m11", "a3.h2", "a3.h2<q>", "a0.h10<v>"])
def test_names_and_keys_undo_each_other(name: str) -> None:
    assert name_of(Node.parse(key_of(name))) == name


@pytest.mark.parametrize("name", ["a3", "a3.h2<z>", "m", "m1<q>", "INPUT"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is none of input, logits"):
        key_of(name)


def test_features_and_missing_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no name in MIB's edge files"):
        random_circuit().to_mib(tmp_path / "out.json", cfg=CFG)
    with pytest.raises(ValueError, match="need the model's n_layers, n_heads, parallel_attn_mlp, d_model"):
        random_circuit().to_mib(tmp_path / "out.json")
    with pytest.raises(ValueError, match="need the model's d_model: give"):
        random_circuit().to_mib(tmp_path / "out.json", cfg={k: v for k, v in CFG.items() if k != "d_model"})
    assert not (tmp_path / "out.json").exists()


def test_a_node_that_the_architecture_has_not_is_refused(tmp_path: Path) -> None:
    nodes = table("embed", "7.mlp", "metric")
    circuit = CircuitData(nodes, torch.ones(3, dtype=torch.float64), Weights((3, 3), ()), (), 1)

    with pytest.raises(ValueError, match=r"m7: a model with 2 layers of 2 heads has no such node"):
        circuit.to_mib(tmp_path / "out.json", cfg=CFG)


def test_edges_into_whole_heads_are_sent_to_edge_attribution(tmp_path: Path) -> None:
    weights = Weights.from_dense(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    nodes = table("embed", "1.attn.head:0", "metric")
    circuit = CircuitData(nodes, torch.ones(3, dtype=torch.float64), weights, (), 1)

    with pytest.raises(ValueError, match=r"'embed -> 1\.attn\.head:0' leads to a head as a whole.*by_input=True"):
        circuit.to_mib(tmp_path / "out.json", cfg=CFG)
    assert not (tmp_path / "out.json").exists()


def test_a_pickle_and_what_is_no_such_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="is a pickle"):
        CircuitData.from_mib(tmp_path / "graph.pt")
    for said in ({}, {"cfg": CFG, "nodes": {}, "edges": {"a->b": {"score": 1, "in_graph": True}}}, [1]):
        with pytest.raises(FileFormatError, match="is no edge file of MIB's"):
            CircuitData.from_mib(_written(tmp_path, said))
