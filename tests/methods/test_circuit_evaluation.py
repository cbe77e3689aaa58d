"""Evaluating circuits: a planted one, the demo's agreement circuit, sweeps, and what cannot be meant."""

from functools import cache
from typing import Any

import pytest
import torch

import whence
from circuit_cases import pairs, random_saes, small
from circuit_chosen import circuit_of, some_pairs
from whence.methods.circuit import feature_circuit
from whence.methods.circuit_evaluation import completeness, faithfulness, sweep
from whence.results.circuit_data import CircuitData
from whence.results.circuit_sweep import SIZES
from whence.targets.pairs import Pairs

UNITS = ["attn.head", "mlp.neuron"]
SAES = random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})


def planted() -> Any:
    """A model in which all that is written comes from head 1 of layer 0 and neuron 5 of layer 1."""
    model = small("gpt2")
    with torch.no_grad():
        for layer, block in enumerate(model.hf.transformer.h):
            kept = {"attn": range(8, 16) if layer == 0 else [], "mlp": [5] if layer == 1 else []}
            for name, rows in kept.items():
                out = getattr(block, name).c_proj
                weight = torch.zeros_like(out.weight)
                weight[rows] = 5 * out.weight[rows]
                out.weight.copy_(weight)
    return model


PLANTED = {"0.attn": [1], "1.mlp": [5]}


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
def test_a_planted_circuit_is_faithful_and_complete(edges: bool, ablation: Any) -> None:
    model, examples = planted(), some_pairs(*pairs())
    circuit = circuit_of(model, UNITS, lambda site, unit, _: unit in PLANTED.get(site.key, []) or site.layer is None)
    how: dict[str, Any] = {"edges": edges, "ablation": ablation}
    found = faithfulness(circuit, model, UNITS, examples, **how)
    assert found.nodes == 2
    assert found.value == pytest.approx(1.0)
    assert completeness(circuit, model, UNITS, examples, **how).value == pytest.approx(0.0, abs=1e-9)
    for key in PLANTED:
        less = circuit_of(model, UNITS, lambda site, unit, _, key=key: site.key == key and unit in PLANTED[key])
        assert abs(faithfulness(less, model, UNITS, examples, **how).value - 1) > 1e-3
    wrong = circuit_of(model, UNITS, lambda site, unit, _: unit not in PLANTED.get(site.key, []))
    assert faithfulness(wrong, model, UNITS, examples, **how).value == pytest.approx(0.0, abs=1e-9)


@cache
def agreement() -> tuple[Any, list[Any], CircuitData, Pairs]:
    """The demo's circuit of agreement over a relative clause, and pairs that it was not found on."""
    model = whence.Model.from_pretrained(whence.demo.model_path())
    names = ("sae_resid_post", "sae_attn_out", "sae_mlp_out")
    saes = [whence.load_dictionary(whence.demo.dictionary_path(name)) for name in names]
    found_on = whence.demo.agreement_pairs(model, "orc", n=40)
    circuit = feature_circuit(
        model, saes, found_on, aggregate="none", method="integrated_gradients", node_threshold=0.2, edges=False
    )
    return model, saes, circuit, whence.demo.agreement_pairs(model, "orc", n=100, held_out=True)


def test_a_twentieth_of_the_active_units_carries_agreement_over_a_relative_clause() -> None:
    model, saes, circuit, held_out = agreement()
    found = faithfulness(circuit, model, saes, held_out, ablation="mean", errors="default")
    assert found.value >= 0.9
    assert found.interval()[0] >= 0.9
    assert found.share <= 0.05
    assert abs(completeness(circuit, model, saes, held_out).value) < 0.1
    assert abs(faithfulness(circuit.top(0), model, saes, held_out).value) < 1e-6


def test_parts_are_those_above_each_threshold() -> None:
    model, saes, circuit, held_out = agreement()
    found = sweep(circuit, model, saes, held_out[:20], thresholds=(2.0, 0.5))
    for limit, part, rest in zip((2.0, 0.5), found.faithfulness, found.completeness, strict=True):
        cut = circuit.threshold(node=limit)
        alone = faithfulness(cut, model, saes, held_out[:20])
        torch.testing.assert_close(part.chosen, alone.chosen)
        torch.testing.assert_close(rest.chosen, completeness(cut, model, saes, held_out[:20]).chosen)
        assert (part.nodes, part.share) == (alone.nodes, alone.share)
    assert found.sizes == tuple(
        (len(circuit.threshold(node=t).nodes) - 1) / (len(circuit.nodes) - 1) for t in (2.0, 0.5)
    )
    assert (found.by, found.thresholds) == ("nodes", (2.0, 0.5))


def test_parts_by_size_grow_to_the_whole_circuit() -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    circuit = circuit_of(model, SAES)
    found = sweep(circuit, model, SAES, examples, edges=True, sizes=(0.0, 0.2, 1.0), embeddings="default")
    assert [score.edges for score in found.faithfulness] == [0, *(round(s * circuit.weights.nnz) for s in (0.2, 1.0))]
    assert (found.by, found.sizes) == ("edges", (0.0, 0.2, 1.0))
    assert found.faithfulness[0].value == pytest.approx(0.0, abs=1e-9)
    assert found.faithfulness[-1].value == pytest.approx(1.0)
    assert sweep(circuit, model, SAES, examples).sizes == SIZES


def test_edges_of_a_found_circuit_are_enough_if_closed_gates_have_some() -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    how: dict[str, Any] = {"method": "gradient", "node_threshold": 0.0, "edge_threshold": 0.0}
    by_gradient = feature_circuit(model, SAES, examples, **how)
    integrated = feature_circuit(model, SAES, examples, **how, edge_gradient="integrated_gradients", steps=40)
    values = [
        faithfulness(circuit, model, SAES, examples, ablation="resample", edges=True).value
        for circuit in (by_gradient, integrated)
    ]
    assert by_gradient.provenance["report"]["closed gates"] > 0
    assert [*by_gradient.nodes] == [*integrated.nodes]
    assert values[0] < 0.7
    assert values[1] == pytest.approx(1.0, abs=0.005)


def test_nothing_given_is_changed() -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    circuit = circuit_of(model, SAES)
    before = [one.clone() for one in (circuit.effects, circuit.weights.dense(), circuit.nodes.columns())]
    weights = {name: one.clone() for name, one in model.hf.state_dict().items()}
    bases = [one.W_dec.clone() for one in SAES]
    for edges in (False, True):
        first = sweep(circuit, model, SAES, examples, edges=edges, sizes=(0.1, 0.5), errors="keep", ablation="zero")
        again = sweep(circuit, model, SAES, examples, edges=edges, sizes=(0.1, 0.5), errors="keep", ablation="zero")
        assert torch.equal(first.values, again.values)
    after = (circuit.effects, circuit.weights.dense(), circuit.nodes.columns())
    assert all(map(torch.equal, before, after))
    assert all(torch.equal(one, weights[name]) for name, one in model.hf.state_dict().items())
    assert all(torch.equal(one.W_dec, base) for one, base in zip(SAES, bases, strict=True))


def test_any_metric_of_the_logits_can_count() -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    circuit = circuit_of(model, SAES, lambda site, unit, _: unit % 2 == 0)
    own = faithfulness(circuit, model, SAES, examples)
    same = faithfulness(circuit, model, SAES, examples[:1], metric=lambda logits: logits[..., 7] - logits[..., 5])
    torch.testing.assert_close(own.model[:1], same.model)


def test_circuits_without_errors_and_progress_are_told() -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    told: list[tuple[str, int, int]] = []
    features = circuit_of(model, SAES, lambda site, unit, _: unit < site.units.count - 1)
    found = faithfulness(features, model, SAES, examples, batch_size=1, progress=lambda *one: told.append(one))
    removed = faithfulness(features, model, SAES, examples, batch_size=1, errors="remove")
    torch.testing.assert_close(found.chosen, removed.chosen)
    assert found.active == removed.active + 6  # an error a site
    assert [one for one in told if one[0] == "ablation"] == [("ablation", 1, 2), ("ablation", 2, 2)]


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"ablation": "noise"}, ValueError, "ablation='noise'; it is one of mean, zero, resample"),
        ({"errors": "some"}, ValueError, "errors='some'"),
        ({"embeddings": "no"}, ValueError, "embeddings='no'"),
        ({"start_layer": -1}, ValueError, "start_layer=-1; it is at least 0"),
        ({"batch_size": 0}, ValueError, "batch_size=0; it is at least 1"),
        ({"thresholds": [1.0], "sizes": [1.0]}, ValueError, "thresholds= or sizes=, not both"),
        ({"sizes": [2.0]}, ValueError, "a size is a share"),
        ({"thresholds": []}, ValueError, "thresholds= has no number; give at least one"),
        ({"sizes": []}, ValueError, "sizes= has no number; give at least one"),
    ],
)
def test_what_cannot_be_meant_is_refused(how: dict[str, Any], error: type[Exception], said: str) -> None:
    model, examples = small("gpt2"), some_pairs(*pairs())
    with pytest.raises(error, match=said):
        getattr(sweep, "__wrapped__", sweep)(circuit_of(model, SAES), model, SAES, examples, **how)


def test_resampling_needs_patch_prompts_and_pairs_must_be_pairs() -> None:
    model, circuit = small("gpt2"), circuit_of(small("gpt2"), SAES)
    with pytest.raises(ValueError, match="ablation='resample' needs patch prompts"):
        faithfulness(circuit, model, SAES, some_pairs(pairs()[0], None), ablation="resample")
    with pytest.raises(TypeError, match=r"pairs= is list; give whence\.Pairs"):
        getattr(faithfulness, "__wrapped__", faithfulness)(circuit, model, SAES, [[1, 2]])
