import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layered_graphs import VOCABULARY, layered
from whence.errors import FileFormatError
from whence.results.graph import Graph
from whence.results.keys import LogitTarget
from whence.results.weights import Weights

SEEDS = st.integers(min_value=0, max_value=10_000)


def _same(one: Graph, other: Graph) -> None:
    assert [*one.nodes] == [*other.nodes]
    assert torch.equal(one.dense(), other.dense())
    assert one.dense().dtype == other.dense().dtype
    for name in ("input_tokens", "active_features", "activation_values", "selected_features", "logit_probabilities"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("logit_targets", "vocab_size", "prompt", "token_texts", "provenance"):
        assert getattr(one, name) == getattr(other, name), name
    assert (one.certificate.worst, one.certificate.bound) == (other.certificate.worst, other.certificate.bound)
    assert torch.equal(one.cumulative_influence(), other.cumulative_influence())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parity", [False, True])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype, parity: bool) -> None:
    graph = layered(1, dtype=dtype, parity=parity)

    _same(Graph.load(graph.save(tmp_path / "graph")), graph)


def test_a_pruned_graph_and_a_mean_come_back_whole(tmp_path: Path) -> None:
    pruned, mean = layered(1).prune(), Graph.mean([layered(1), layered(2)])

    _same(Graph.load(pruned.save(tmp_path / "pruned")), pruned)
    loaded = Graph.load(mean.save(tmp_path / "mean"))
    _same(loaded, mean)
    assert loaded.counts is not None
    assert mean.counts is not None
    assert torch.equal(loaded.counts.dense(), mean.counts.dense())


def test_a_graph_of_before_nodes_had_ends_stays_readable() -> None:
    graph = Graph.load(Path(__file__).parent / "data" / "graph-v1")
    made = layered(3, layers=2, positions=3, most=1, dtype=torch.float32)

    assert (graph.nodes.end == -1).all()
    _same(graph, made)


def test_a_graph_without_edges_comes_back(tmp_path: Path) -> None:
    graph = layered(1)
    bare = replace(graph, weights=Weights(graph.weights.shape, ()))

    assert Graph.load(bare.save(tmp_path / "bare")).weights.nnz == 0


def test_weights_are_read_when_they_are_used_and_not_before(tmp_path: Path) -> None:
    path = layered(1).save(tmp_path / "graph")
    (large,) = path.glob("large-*")
    large.rename(path / "elsewhere")

    graph = Graph.load(path)

    assert graph.nodes[0] == layered(1).nodes[0]
    assert repr(graph) == repr(layered(1))
    with pytest.raises(FileFormatError, match="is missing"):
        graph.dense()
    (path / "elsewhere").rename(large)
    _same(graph, layered(1))


@pytest.mark.parametrize("part", ["large", "tensors", "result"])
def test_a_damaged_file_is_refused(tmp_path: Path, part: str) -> None:
    path = layered(1).save(tmp_path / "graph")
    (file,) = path.glob(f"{part}*")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if part != "result" else content.replace(b"mlp", b"mip"))

    with pytest.raises(FileFormatError, match="damaged"):
        Graph.load(path).dense()


def test_scores_are_no_graph(tmp_path: Path) -> None:
    from whence.results import store

    store.write(tmp_path / "run", "scores", {}, {})

    with pytest.raises(FileFormatError, match="kind 'scores', and 'graph' is wanted"):
        Graph.load(tmp_path / "run")


def test_saving_again_leaves_one_graph(tmp_path: Path) -> None:
    layered(1).save(tmp_path / "graph")
    layered(2).save(tmp_path / "graph")

    assert len(list((tmp_path / "graph").iterdir())) == 3
    _same(Graph.load(tmp_path / "graph"), layered(2))


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_edges_into_and_out_of_nodes_are_the_rows_and_columns_strongest_first(seed: int) -> None:
    graph = layered(seed)
    matrix = graph.dense()

    for i, node in enumerate(graph.nodes):
        into, out = graph.into(node), graph.out_of(str(node))
        assert {edge.source: edge.weight for edge in into} == {
            graph.nodes[j]: matrix[i, j].item() for j in matrix[i].nonzero()[:, 0].tolist()
        }
        assert {edge.target: edge.weight for edge in out} == {
            graph.nodes[j]: matrix[j, i].item() for j in matrix[:, i].nonzero()[:, 0].tolist()
        }
        for edges in (into, out):
            sizes = [abs(edge.weight) for edge in edges]
            assert sizes == sorted(sizes, reverse=True)


def test_the_strongest_edges_are_those_that_carry_most_influence() -> None:
    graph = layered(4)
    matrix = graph.dense()
    carried = matrix.abs() / matrix.abs().sum(1, keepdim=True).clamp_min(1e-10) * graph._reached[:, None]
    row, column = divmod(int(carried.argmax()), len(graph.nodes))

    found = graph.edges(5)

    assert (found[0].source, found[0].target) == (graph.nodes[column], graph.nodes[row])
    assert found[0].weight == matrix[row, column].item()
    assert len(found) == 5
    assert len(graph.edges(10**6)) == graph.weights.nnz


def test_a_node_that_is_not_there_is_named_with_those_near_it() -> None:
    with pytest.raises(KeyError, match=r"Near it are"):
        layered(0).into("0.mlp.feature:39@99")
    with pytest.raises(ValueError, match="Did you mean"):
        layered(0).into("0.mlp.featur:3@1")


def test_targets_are_token_ids_unless_one_is_virtual() -> None:
    graph = layered(0)
    assert (graph.vocab_indices, graph.has_virtual_indices) == ([10, 11], False)
    assert graph.logit_token_ids.tolist() == [10, 11]

    virtual = replace(graph, logit_targets=(LogitTarget(" a", 10), LogitTarget("a − b", VOCABULARY)))

    assert (virtual.vocab_indices, virtual.has_virtual_indices) == ([10, VOCABULARY], True)
    with pytest.raises(ValueError, match=r"'a − b'.* Use vocab_indices"):
        _ = virtual.logit_token_ids


def test_the_former_name_of_token_ids_warns() -> None:
    with pytest.warns(DeprecationWarning, match="logit_token_ids"):
        assert layered(0).logit_tokens.tolist() == [10, 11]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", Weights((3, 3), ())),
        ("logit_targets", ()),
        ("token_texts", ("a",)),
        ("selected_features", torch.tensor([0])),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} has"):
        replace(layered(0), **{field: value})


def test_the_table_names_edges_scores_and_certificate() -> None:
    graph = layered(3)
    said = str(graph)

    assert all(str(edge.source) in said for edge in graph.edges(15))
    assert f"replacement {graph.replacement_score():.2f}" in said
    assert "within" in said
    assert repr(graph.prune()).startswith("Graph('The capital of → word10 (")
    assert f"of {len(graph.nodes)}" in repr(graph.prune())


def test_the_notebook_table_escapes_what_tokens_hold() -> None:
    graph = layered(0)
    texts = ("<s>", "<script>alert(1)</script>", *graph.token_texts[2:])
    shown = replace(graph, token_texts=texts, prompt=texts[1])._repr_html_()

    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_edges_are_written_as_a_table(tmp_path: Path) -> None:
    graph = layered(0)
    lines = graph.to_csv(tmp_path / "edges.csv").read_text().splitlines()
    row, column = (int(index[0]) for index in graph.weights.coo()[:2])

    assert lines[0] == "source,target,weight"
    assert len(lines) == graph.weights.nnz + 1
    assert lines[1] == f"{graph.nodes[column]},{graph.nodes[row]},{graph.dense()[row, column].item()}"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_drawn(tmp_path: Path, suffix: str) -> None:
    layered(0).prune().plot(tmp_path / f"graph{suffix}")

    assert (tmp_path / f"graph{suffix}").stat().st_size > 1000


def test_a_plot_of_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        layered(0).plot(tmp_path / "graph.bmp")


def test_provenance_says_what_was_pruned(tmp_path: Path) -> None:
    pruned = layered(0).prune(0.7, 0.9)

    assert pruned.provenance["pruned"] == {"nodes": 0.7, "edges": 0.9, "of_nodes": len(layered(0).nodes)}
    json.dumps(pruned.provenance)
