"""Orders, shards, budgets and conventions: different ways to the same rows."""

import re
from itertools import permutations

import pytest
import torch
from torch import Tensor

from families import loaded, prompts
from graphs import by_graph, cross_layer, transcoders
from whence.components.neurons import Neurons
from whence.engine.memory import RowStore
from whence.methods.graph import attribution_graph, attribution_graphs
from whence.results.graph import Graph

IDS = prompts(1, 7)
TOKENS = torch.tensor([5, 6, 7])


def made(name: str = "llama", dtype: torch.dtype = torch.float64, units: object = None, **options: object) -> Graph:
    model = loaded(name, dtype)
    return attribution_graph(model, transcoders(model) if units is None else units, IDS, TOKENS, **options)


def keys(graph: Graph) -> list[str]:
    return [str(node) for node in graph.nodes]


def features(graph: Graph) -> list[str]:
    return [key for key in keys(graph) if "feature" in key]


def total_effects(graph: Graph) -> Tensor:
    """[output, node]: the sum over all paths from each node."""
    weights, n = graph.weights.dense().double(), len(graph.nodes)
    # A step from node s to feature t multiplies t's whole write by the share of its activation that s moved.
    share = torch.zeros(n, dtype=torch.float64)
    share[: len(graph.selected_features)] = 1 / graph.activation_values[graph.selected_features].double()
    step = share[:, None] * weights
    paths = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - step)
    return weights[-len(TOKENS) :] @ paths


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_exact_order_takes_the_features_with_the_largest_total_effects(name: str) -> None:
    whole = made(name)
    sizes = (whole.logit_probabilities[:, None].double() * total_effects(whole).abs()).sum(0)[: len(features(whole))]
    chosen = made(name, max_nodes=20, order="exact")
    assert features(chosen) == [features(whole)[i] for i in sizes.topk(20).indices.sort().values]


@pytest.mark.parametrize("order", ["exact", "influence"])
def test_an_order_that_may_take_all_nodes_gives_the_whole_graph(order: str) -> None:
    whole, all_of_them = made(), made(max_nodes=10_000, order=order)
    assert keys(whole) == keys(all_of_them)
    assert torch.equal(whole.dense(), all_of_them.dense())


@pytest.mark.parametrize("order", ["exact", "influence"])
@pytest.mark.parametrize("count", [0, 1, 25])
def test_features_without_rows_are_summed_in_rest(order: str, count: int) -> None:
    whole, part = made(), made(max_nodes=count, order=order)
    edges, some = by_graph(whole), by_graph(part)
    assert len(features(part)) == count
    kept = [key for key in some.sources if key != "rest"]
    assert torch.allclose(edges.at(some.targets, kept), some.at(some.targets, kept), rtol=1e-9, atol=1e-12)
    left_out = [key for key in edges.sources if key not in kept]
    summed = edges.at(some.targets, left_out).sum(1)
    assert torch.allclose(some.at(some.targets, ["rest"])[:, 0], summed, rtol=1e-9, atol=1e-12)
    assert len(part.active_features) == len(whole.active_features)


def test_influence_takes_first_what_feeds_the_targets_most() -> None:
    whole, first = made(), made(max_nodes=1)
    rows = by_graph(whole)
    outputs = rows.at([key for key in rows.targets if "output" in key], rows.sources)
    shares = outputs.abs() / outputs.abs().sum(1, keepdim=True)
    influence = (whole.logit_probabilities[:, None].double() * shares).sum(0)
    strongest = max(features(whole), key=lambda key: influence[rows.sources.index(key)])
    assert features(first) == [strongest]


def test_given_nodes_get_the_rows() -> None:
    whole = made()
    wanted = features(whole)[3:40:9]
    assert features(made(nodes=list(reversed(wanted)))) == wanted


def test_shards_put_together_in_any_order_are_the_whole_graph_block_by_block() -> None:
    whole, parts = made(), [made(shard=(i, 3)) for i in range(3)]
    for part in parts:
        assert keys(part) == keys(whole)
    for order in permutations(parts):
        merged = Graph.merge(order)
        assert keys(merged) == keys(whole)
        blocks = {tuple(block.rows.tolist()): block for block in merged.weights}
        assert len(blocks) == len(list(whole.weights))
        for block in whole.weights:
            mine = blocks[tuple(block.rows.tolist())]
            assert torch.equal(mine.columns, block.columns)
            assert torch.equal(mine.values, block.values)
        assert merged.certificate.rows.sort().values.tolist() == whole.certificate.rows.tolist()
        assert merged.certificate.worst == whole.certificate.worst


def test_a_shard_without_rows_is_an_empty_part() -> None:
    assert made(shard=(99, 100)).weights.nnz == 0


def test_a_budget_below_one_row_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(
        ValueError, match=r"memory=10.00 KB is too little: .* Allow at least ([0-9.]+ [KM]B)"
    ) as refused:
        made(memory="10KB")
    least = re.search(r"at least ([0-9.]+) ([KM]B)", str(refused.value))
    assert least is not None
    made(memory=f"{float(least[1]) + 0.01}{least[2]}")


@pytest.mark.parametrize("options", [{}, {"max_nodes": 30}, {"max_nodes": 120, "order": "exact"}])
def test_rows_that_went_to_disk_equal_those_in_memory(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    stores: list[RowStore] = []
    started = RowStore.__init__

    def noted(self: RowStore, *args: object) -> None:
        started(self, *args)
        stores.append(self)

    units = transcoders(loaded("llama", torch.float64), features=48)
    in_memory = made(units=units, **options)
    monkeypatch.setattr(RowStore, "__init__", noted)
    with pytest.raises(ValueError) as refused:
        made(units=units, memory="10KB", **options)
    least = re.search(r"at least ([0-9.]+) KB", str(refused.value))
    assert least is not None
    on_disk = made(units=units, memory=f"{float(least[1]) + 1}KB", **options)
    assert stores[-1].spilled > 0
    assert keys(on_disk) == keys(in_memory)
    assert torch.allclose(on_disk.dense(), in_memory.dense(), rtol=0, atol=1e-12)


def test_the_other_tools_convention_is_native_rows_less_the_mean_logit_and_some_columns() -> None:
    model = loaded("gpt2", torch.float64)
    ids = IDS.clone()
    ids[0, 0] = model.hf.config.bos_token_id  # so that no dictionary is trusted at position 0 either way
    units = transcoders(model)
    theirs = attribution_graph(model, units, ids, TOKENS, parity="circuit-tracer")
    native = by_graph(attribution_graph(model, units, ids, torch.arange(model.vocab_size)))
    rows, length = by_graph(theirs), ids.shape[1]
    named = [key for key in rows.sources if "feature" in key]
    named += [f"{layer}.mlp.error@{p}" for layer in range(model.n_layers) for p in range(length)]
    named += [f"embed:{token}@{p}" for p, token in enumerate(ids[0].tolist())]
    assert rows.sources == [*named, *(f"output:{token}@{length - 1}" for token in TOKENS.tolist())]
    shared = [key for key in named if not key.endswith("error@0")]
    own = [key for key in rows.targets if "feature" in key]
    assert torch.allclose(rows.at(own, shared), native.at(own, shared), rtol=1e-9, atol=1e-12)
    every = native.at([f"output:{t}@{length - 1}" for t in range(model.vocab_size)], shared)
    logits = rows.at([f"output:{token}@{length - 1}" for token in TOKENS.tolist()], shared)
    assert torch.allclose(logits, every[TOKENS] - every.mean(0), rtol=1e-9, atol=1e-12)
    first = rows.at(rows.targets, [key for key in named if key.endswith("error@0")])
    assert (first == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nodes": -1}, "max_nodes=-1"),
        ({"max_nodes": True}, "max_nodes=True"),
        ({"nodes": ["0.mlp.feature:1@1"], "max_nodes": 3}, "leave max_nodes out"),
        ({"nodes": ["0.mlp.feature:999@1"]}, "999@1 is not an active feature"),
        ({"shard": (2, 2)}, "0 <= i < n"),
        ({"shard": (0, 2), "max_nodes": 5}, "order='exact'"),
        ({"memory": "much"}, "memory='much'"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        made(**options)


def test_one_prompt_is_asked_for() -> None:
    model = loaded("llama")
    with pytest.raises(ValueError, match="2 prompts"):
        attribution_graph(model, transcoders(model), prompts(2, 5))


def test_a_failing_prompt_leaves_the_others_and_is_raised_at_the_end() -> None:
    model = loaded("llama")
    units, given = transcoders(model), [IDS, prompts(2, 4), IDS[:, :4]]
    done: list[int] = []
    with pytest.raises(ValueError, match="2 prompts") as failed:
        done.extend(number for number, _ in attribution_graphs(model, units, given, TOKENS))
    assert done == [0, 2]
    assert failed.value.__notes__ == ["in prompt 1"]
    told: list[int] = []
    assert len(list(attribution_graphs(model, units, given, TOKENS, on_error=lambda n, _: told.append(n)))) == 2
    assert told == [1]


def test_progress_counts_the_rows() -> None:
    told: list[tuple[str, int, int]] = []
    graph = made(units=cross_layer(loaded("llama", torch.float64)), progress=lambda *report: told.append(report))
    assert told[-1] == ("rows", len(features(graph)), len(features(graph)))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_neurons_get_a_limited_number_of_rows_unless_asked() -> None:
    graph = made("gpt2", units=Neurons(), max_nodes=15)
    assert sum("neuron" in key for key in keys(graph)) == 15
    assert "rest" in keys(graph)
    assert len(graph.active_features) == 3 * IDS.shape[1] * 128
