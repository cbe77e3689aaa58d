"""Ablation of edges: what must hold of none and all, and one edge less against a path patched by hooks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import Wide, oracle, pairs, random_saes, random_transcoders, small
from circuit_chosen import circuit_of, gone_values, join, some_pairs, split
from whence.errors import UnsupportedModelError
from whence.methods.circuit_evaluation import completeness, faithfulness
from whence.results.circuit_data import CircuitData
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
SLOTS = ("a", "b", "c", "d")
CASES: dict[str, tuple[str, Any]] = {
    "gpt2": ("gpt2", random_saes(range(2), THREE)),
    "parallel": ("gpt_neox", random_saes(range(2), THREE)),
    "post-norm": ("gemma2", random_saes(range(2), {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32})),
    "one layer's stream": ("gpt2", random_saes([0], {"resid_post": 32})),
    "mlp only": ("llama", random_saes(range(2), {"mlp_out": 32})),
    "embeddings": ("gpt2", [*random_saes([0], {"embed": 32}), *random_saes(range(2), {"attn_out": 32})]),
    "skip transcoders": ("llama", [*random_transcoders(range(2), 32, skip=True), "attn"]),
    "heads and MLPs": ("gpt2", ["attn.head", "mlp"]),
}
HEADS = ["attn.head", "mlp"]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def third(site: Any, unit: int, slot: int) -> bool:
    return site.layer is None or (unit + slot + sum(map(ord, site.key))) % 3 == 0


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("embeddings", ["keep", "default"])
def test_all_edges_are_the_model_and_none_are_nothing(name: str, embeddings: Any) -> None:
    family, dictionaries = CASES[name]
    model, examples = small(family), some_pairs(pairs()[0], pairs(seed=2)[0])
    how: dict[str, Any] = {"edges": True, "embeddings": embeddings, "ablation": "resample"}
    with Wide():
        every = circuit_of(model, dictionaries)
        whole = faithfulness(every, model, dictionaries, examples, **how)
        close(whole.chosen, whole.model)
        rest = completeness(every, model, dictionaries, examples, **how)
        close(rest.chosen, rest.empty)
        none = circuit_of(model, dictionaries, edges=False)
        nothing = faithfulness(none, model, dictionaries, examples, **how)
        close(nothing.chosen, nothing.empty)
        close(completeness(none, model, dictionaries, examples, **how).chosen, whole.model)
    assert not torch.allclose(whole.model, whole.empty)
    assert (whole.edges, nothing.edges) == (counted(every, embeddings), 0)


def counted(circuit: CircuitData, embeddings: str) -> int:
    target, source, _ = circuit.weights.coo()
    fixed = circuit.nodes.named(lambda name: name == "embed") if embeddings == "keep" else torch.zeros(1).bool()
    fixed = fixed.expand(len(circuit.nodes))
    return int((~fixed[target] & ~fixed[source]).sum())


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("errors", ["default", "keep", "remove"])
def test_every_edge_between_the_nodes_is_the_ablation_of_the_others(name: str, errors: Any) -> None:
    family, dictionaries = CASES[name]
    model, examples = small(family), some_pairs(*pairs())
    circuit = circuit_of(model, dictionaries, third, SLOTS)
    with Wide():
        nodes, edges = (
            faithfulness(circuit, model, dictionaries, examples, errors=errors, edges=kind) for kind in (False, True)
        )
    close(edges.chosen, nodes.chosen)
    assert not torch.allclose(edges.chosen, edges.model)


def test_start_layer_leaves_edges_below_alone() -> None:
    model, saes = small("gpt2"), CASES["gpt2"][1]
    circuit, examples = circuit_of(model, saes, third, SLOTS), some_pairs(*pairs())
    nodes, edges = (faithfulness(circuit, model, saes, examples, start_layer=1, edges=kind) for kind in (False, True))
    close(edges.chosen, nodes.chosen)
    assert 0 < edges.edges < circuit.weights.nnz


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_one_edge_less_is_a_path_patched_by_hand(family: str) -> None:
    """Without 0.resid_post.feature:3 -> 1.attn_out.feature:2, that feature alone hears the other as ablated."""
    saes, model, (ids, other) = random_saes(range(2), THREE), small(family), pairs()
    keys = ("0.resid_post.feature:3", "1.attn_out.feature:2")
    circuit = circuit_of(model, saes, leave_out=[keys])
    with Wide(), torch.no_grad():
        slow = oracle(model, saes)
        gone, clean = gone_values(slow, other, "resample"), slow.values(ids)
        stream = next(part for part in slow.parts if part.key == "0.resid_post")
        features, error = split(stream, clean["0.resid_post"][0])
        features[..., 3] = gone["0.resid_post"][0][..., 3]
        heard, _ = slow.arriving(ids, lambda part, x: join(stream, features, error) if part is stream else None)

        def edit(part: Any, x: Tensor) -> Tensor | None:
            if part.key != "1.attn_out":
                return None
            own, missed = split(part, x)
            own[..., 2] = split(part, heard["1.attn_out"][0])[0][..., 2]
            return join(part, own, missed)

        wanted = slow.run(ids, edit)
        examples, how = some_pairs(ids, other), {"edges": True, "ablation": "resample"}
        found = faithfulness(circuit, model, saes, examples, **how)
        close(found.chosen, wanted)
        assert float((wanted - found.model).abs().max()) > 1e-4
        without = completeness(only(circuit_of(model, saes), *keys), model, saes, examples, **how)
        close(without.chosen, wanted)
    assert without.edges == 1


def only(circuit: CircuitData, source: str, target: str) -> CircuitData:
    """The circuit with one of its edges."""
    weights = torch.zeros(circuit.weights.shape, dtype=torch.float64)
    weights[circuit.nodes.find(target), circuit.nodes.find(source)] = 1.0
    return CircuitData(circuit.nodes, circuit.effects, Weights.from_dense(weights), (), circuit.examples)


def with_ends(model: Any, leave_out: Any = lambda end, source: False) -> CircuitData:
    """All heads with their ends, all edges into ends instead of heads, but those to leave out."""
    plain = circuit_of(model, HEADS)
    heads = [node for node in plain.nodes if node.name == "attn.head"]
    ends = [Node("attn.head", head.layer, head.index, end) for head in heads for end in "qkv"]
    nodes = [*list(plain.nodes)[:-1], *ends, plain.nodes[len(plain.nodes) - 1]]
    place = {node: i for i, node in enumerate(nodes)}
    edges: list[tuple[int, int]] = []
    for edge in plain.edges(plain.weights.nnz):
        if edge.target in heads:
            own = [end for end in ends if (end.layer, end.index) == (edge.target.layer, edge.target.index)]
            edges += [(place[end], place[edge.source]) for end in own if not leave_out(end, edge.source)]
        else:
            edges.append((place[edge.target], place[edge.source]))
    edges += [(place[Node("attn.head", end.layer, end.index)], place[end]) for end in ends]
    n, (row, column) = len(nodes), torch.tensor(edges).T
    weights = Weights.from_coo(row, column, torch.ones(len(edges), dtype=torch.float64), (n, n))
    return CircuitData(NodeTable.from_nodes(nodes), torch.ones(n, dtype=torch.float64), weights, (), 2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_queries_keys_and_values_of_heads_hear_by_themselves(family: str) -> None:
    model, ids, other = small(family), pairs()[0], pairs(seed=2)[0]
    how: dict[str, Any] = {"edges": True, "embeddings": "default", "ablation": "resample"}
    with Wide():
        whole = faithfulness(with_ends(model), model, HEADS, some_pairs(ids, other), **how)
        close(whole.chosen, whole.model)
        rest = completeness(with_ends(model), model, HEADS, some_pairs(ids, other), **how)
        close(rest.chosen, rest.empty)
        for end in "qkv":
            wanted = Node("attn.head", 1, 2, end)
            cut = with_ends(model, lambda one, source, wanted=wanted: one == wanted and source.name == "embed")
            found = faithfulness(cut, model, HEADS, some_pairs(ids, other), **how)
            close(found.chosen, end_patched(model, ids, other, "qkv".index(end)))
            assert float((found.chosen - found.model).abs().max()) > 1e-6
            assert found.edges == whole.edges - 1


def end_patched(model: Any, ids: Tensor, other: Tensor, end: int, head: int = 2) -> Tensor:
    """The metric when one end of a head of layer 1 reads a stream with the other prompts' embeddings."""
    slow = oracle(model, HEADS)
    module, columns = projection(model, end)
    kept: list[Tensor] = []
    with torch.no_grad():
        clean, away = slow.values(ids), slow.values(other)["embed"][0]
        handle = module.register_forward_hook(lambda _, __, out: kept.append(out.clone()))
        slow.run(ids, lambda part, _: away if part.key == "embed" else clean[part.key][0])
        handle.remove()
        handle = module.register_forward_hook(lambda _, __, out: torch.where(columns, kept[0], out))
        heads = slow.values(ids)["1.attn"][0]
        handle.remove()
        here = torch.arange(heads.shape[-1]) // (heads.shape[-1] // 4) == head
        z = torch.where(here, heads, clean["1.attn"][0])
        return slow.run(ids, lambda part, _: z if part.key == "1.attn" else None)


def projection(model: Any, end: int) -> tuple[Any, Tensor]:
    """The module that makes queries, keys or values in layer 1, and which columns of its output they are."""
    family = model.hf.config.model_type
    if family == "llama":
        attention = model.hf.model.layers[1].self_attn
        return (attention.q_proj, attention.k_proj, attention.v_proj)[end], torch.tensor(True)
    if family == "gpt2":
        return model.hf.transformer.h[1].attn.c_attn, torch.arange(96) // 32 == end
    return model.hf.gpt_neox.layers[1].attention.query_key_value, torch.arange(96) // 8 % 3 == end


def test_ends_of_heads_are_refused_where_attention_does_not_tell_them() -> None:
    model = small("falcon")
    with pytest.raises(UnsupportedModelError, match="does not tell its queries"):
        faithfulness(with_ends(model), model, HEADS, some_pairs(*pairs()), edges=True)


def test_memory_bounds_how_many_replays_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    model, saes = small("gpt2"), CASES["gpt2"][1]
    leave_out = [(f"0.resid_post.feature:{i}", f"1.mlp_out.feature:{i}") for i in range(5)]
    circuit, examples = circuit_of(model, saes, leave_out=leave_out), some_pairs(*pairs())
    at_once = faithfulness(circuit, model, saes, examples, edges=True)
    monkeypatch.setattr("whence.engine.ablations.edges.AT_ONCE", 1)
    close(faithfulness(circuit, model, saes, examples, edges=True).chosen, at_once.chosen)


def test_an_edge_over_a_site_that_holds_everything_is_refused() -> None:
    model, saes = small("gpt2"), CASES["gpt2"][1]
    wrong = only(circuit_of(model, saes), "0.mlp_out.feature:1", "metric")
    with pytest.raises(ValueError, match=r"0\.mlp_out\.feature:1 -> metric, which is not direct here"):
        faithfulness(wrong, model, saes, some_pairs(*pairs()), edges=True)
