"""Circuits over examples: thresholds on means, sums over positions, and that neither batches nor order matter."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import random_saes, small
from whence.methods.circuit import feature_circuit
from whence.methods.circuit_object import Circuit
from whence.methods.local_edges import local_edges
from whence.targets.pairs import Pairs

SAES = random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})
EVEN = Pairs(
    clean=((5, 9, 30, 12), (7, 11, 12, 13), (8, 21, 4, 40)),
    patch=((5, 10, 30, 12), (7, 31, 12, 13), (8, 22, 4, 40)),
    clean_answers=(5, 6, 7),
    patch_answers=(8, 9, 10),
)
RAGGED = Pairs(
    clean=((5, 9, 30), (7, 11, 12, 13, 50), (8, 21, 4, 40)),
    patch=((5, 10, 30), (7, 31, 12, 13, 50), (8, 22, 4, 40)),
    clean_answers=(5, 6, 7),
    patch_answers=(8, 9, 10),
)
ALL = {"node_threshold": 0.0, "edge_threshold": 0.0}
Edges = dict[tuple[str, str], float]


def found(pairs: Pairs, **settings: Any) -> Circuit:
    return feature_circuit(small("gpt2"), SAES, pairs, **({"method": "gradient"} | settings))


def effects(circuit: Circuit) -> dict[str, float]:
    return dict(zip(map(str, circuit.nodes), circuit.effects.tolist(), strict=True))


def edges(circuit: Circuit) -> Edges:
    return {(str(edge.source), str(edge.target)): edge.weight for edge in circuit.edges(10**6)}


def same(one: Circuit, other: Circuit, rel: float = 1e-6) -> None:
    """Float32 inside transformers' softmax."""
    for numbers in (effects, edges):
        assert numbers(one) == pytest.approx(numbers(other), rel=rel, abs=1e-8)


def merged(numbers: dict[Any, float], key: Any) -> dict[Any, float]:
    sums: dict[Any, float] = {}
    for name, value in numbers.items():
        sums[key(name)] = sums.get(key(name), 0.0) + value
    return sums


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_positions_summed_are_the_sum_over_positions_kept(method: str) -> None:
    kept, summed = (found(EVEN, method=method, aggregate=how, steps=3, **ALL) for how in ("none", "sum"))
    assert kept.slots == ("0", "1", "2", "3")
    assert summed.slots == ()
    bare = lambda key: key.partition("@")[0]  # noqa: E731
    assert merged(effects(kept), bare) == pytest.approx(effects(summed), rel=1e-6)
    pairs = merged(edges(kept), lambda ends: tuple(map(bare, ends)))
    assert pairs == pytest.approx(edges(summed), rel=1e-6, abs=1e-9)


def by_example(circuit: Circuit) -> dict[str, Tensor]:
    samples = circuit.samples
    assert samples is not None
    dense = torch.zeros(len(samples.candidates), circuit.examples, dtype=torch.float64)
    dense[samples.candidate, samples.example] = samples.effect.double()
    return dict(zip(map(str, samples.candidates), dense, strict=True))


def test_nodes_are_those_whose_mean_exceeds_the_threshold() -> None:
    every, threshold = by_example(found(EVEN, aggregate="none", **ALL)), 0.05
    kept = effects(found(EVEN, aggregate="none", node_threshold=threshold))
    expected = {key: float(effect.mean()) for key, effect in every.items() if abs(effect.mean()) > threshold}
    cancelled = [key for key, effect in every.items() if effect.abs().max() > threshold and key not in expected]
    assert len(cancelled) > 5
    assert {key: kept[key] for key in kept if key != "metric"} == pytest.approx(expected, rel=1e-5)


def test_edges_are_those_between_nodes_whose_mean_exceeds_the_threshold() -> None:
    every, cut = (found(EVEN, node_threshold=0.02, edge_threshold=size) for size in (0.0, 0.01))
    assert edges(cut) == {ends: weight for ends, weight in edges(every).items() if abs(weight) > 0.01}
    assert effects(cut) == effects(every)


def test_by_example_a_unit_counts_where_its_own_effect_exceeds_the_threshold() -> None:
    """An edge then is the mean over examples of what goes between tokens where both ends exceed it."""
    threshold = 0.05
    circuit = found(EVEN, gate="per_example", aggregate="none", node_threshold=threshold, edge_threshold=0.0)
    every = by_example(found(EVEN, aggregate="none", **ALL))
    passing = {key: effect.abs() > threshold for key, effect in every.items()}
    assert {*effects(circuit)} == {key for key, there in passing.items() if there.any()} | {"metric"}
    local, expected = local_edges(small("gpt2"), SAES, EVEN).effect("0.resid_post", "1.resid_post"), {}
    _, positions, targets, _, sources = local.axes.values()
    for (example, tp, t, sp, s), value in zip(local.index.T.tolist(), local.value.tolist(), strict=True):
        source, target = f"{sources[s]}@{positions[sp]}", f"{targets[t]}@{positions[tp]}"
        if source in passing and target in passing and passing[source][example] and passing[target][example]:
            expected[source, target] = expected.get((source, target), 0.0) + value / 3
    between = {
        ends: weight
        for ends, weight in edges(circuit).items()
        if ends[0].startswith("0.resid_post") and ends[1].startswith("1.resid_post")
    }
    assert len(between) > 5
    assert between == pytest.approx(expected, rel=1e-5, abs=1e-9)
    aggregate = edges(found(EVEN, aggregate="none", node_threshold=threshold, edge_threshold=0.0))
    shared = between.keys() & aggregate.keys()
    assert any(abs(between[ends] - aggregate[ends]) > 0.01 * abs(aggregate[ends]) for ends in shared)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_do_not_matter(batch_size: int) -> None:
    same(found(RAGGED, batch_size=batch_size, **ALL), found(RAGGED, **ALL))


def test_batches_do_not_matter_along_the_way() -> None:
    settings = {"method": "integrated_gradients", "edge_gradient": "integrated_gradients", "steps": 3, **ALL}
    same(found(RAGGED, batch_size=1, **settings), found(RAGGED, **settings))


def test_the_order_of_examples_does_not_matter_and_copies_change_no_mean() -> None:
    whole = found(RAGGED, **ALL)
    same(found(RAGGED[[2, 0, 1]], **ALL), whole)
    same(found(RAGGED[[0, 1, 2, 0, 1, 2]], **ALL), whole)


def test_prompts_of_several_lengths_are_the_mean_of_each_alone() -> None:
    whole = found(RAGGED, **ALL)
    alone = [found(RAGGED[at : at + 1], **ALL) for at in range(3)]
    for numbers in (effects, edges):
        total: dict[Any, float] = {}
        for one in alone:
            for key, value in numbers(one).items():
                total[key] = total.get(key, 0.0) + value / 3
        assert numbers(whole) == pytest.approx(total, rel=1e-6, abs=1e-8)


def test_slots_align_positions_of_prompts_of_several_lengths() -> None:
    names = (("a", "b", "end"), ("a", "b", "b", "b", "end"), ("a", "b", "b", "end"))
    columns = {name: getattr(RAGGED, name) for name in ("clean", "patch", "clean_answers", "patch_answers")}
    slotted = Pairs(**columns, slots=names, order=("a", "b", "end"))
    circuit = found(slotted, aggregate="none", **ALL)
    assert circuit.slots == ("a", "b", "end")
    assert merged(effects(circuit), lambda key: key.partition("@")[0]) == pytest.approx(effects(found(RAGGED, **ALL)))
    last = {key for key in effects(circuit) if key.startswith("1.resid_post")}
    assert last
    assert all(key.endswith("@2") for key in last)


def test_nothing_that_is_given_changes() -> None:
    model = small("gpt2")
    before = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    weights = [one.W_dec.clone() for one in SAES]
    feature_circuit(model, SAES, RAGGED, edge_gradient="integrated_gradients", steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.hf.state_dict().items())
    assert all(torch.equal(one.W_dec, kept) for one, kept in zip(SAES, weights, strict=True))
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    assert model.hf.config._attn_implementation == "eager"
