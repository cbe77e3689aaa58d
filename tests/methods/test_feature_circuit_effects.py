"""Effects of a circuit's nodes: three methods, every baseline, against forward passes of the whole model."""

from typing import Any

import pytest
import torch
from torch import Tensor

import whence
from circuit_cases import CLEAN, PATCH, oracle, pairs, random_saes, small
from whence.methods.circuit import feature_circuit
from whence.methods.circuit_object import Circuit
from whence.targets.pairs import Pairs

SAES = random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})
ALL = {"node_threshold": 0.0, "edges": False, "aggregate": "none"}
IDS, OTHER = pairs()
rows = lambda tensor: tuple(map(tuple, tensor.tolist()))  # noqa: E731
PAIRS = Pairs(rows(IDS), rows(OTHER), tuple(CLEAN.tolist()), tuple(PATCH.tolist()))
SITE = "0.resid_post"


def found(**settings: Any) -> Circuit:
    return feature_circuit(small("gpt2"), SAES, PAIRS, **({"method": "gradient"} | settings | ALL))


def at_site(circuit: Circuit, site: str = SITE) -> dict[str, float]:
    keys = map(str, circuit.nodes)
    return {key: effect for key, effect in zip(keys, circuit.effects.tolist(), strict=True) if key.startswith(site)}


def by_key(table: Tensor, site: str = SITE) -> dict[str, float]:
    """[pos, unit] by node key, zeros left out; the last unit is the error."""
    last = table.shape[1] - 1
    name = lambda unit: "error" if unit == last else f"feature:{unit}"  # noqa: E731
    return {f"{site}.{name(unit)}@{pos}": float(table[pos, unit]) for pos, unit in table.nonzero().tolist()}


def slopes_times(moves: Tensor) -> dict[str, float]:
    """Mean over examples of the metric's slope times what every unit's difference writes."""
    gradient = oracle(small("gpt2"), SAES).gradients(IDS)[SITE]
    return by_key((gradient[..., None, :] * moves).sum(-1).mean(0))


def said(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Features [example, pos, feature] and error [example, pos, d] at the site."""
    slow = oracle(small("gpt2"), SAES)
    features, vectors = next(part for part in slow.parts if part.key == SITE).split.said(*slow.values(ids)[SITE])
    return features, vectors[..., 0, :]


def moved_to(features: Tensor, error: Tensor) -> Tensor:
    sae = next(one for one in SAES if f"{one.layer}.{one.site}" == SITE)
    f0, e0 = said(IDS)
    return torch.cat([(features - f0)[..., None] * sae.W_dec, (error - e0)[..., None, :]], -2)


def test_the_baseline_patch_is_what_units_say_there() -> None:
    assert at_site(found()) == pytest.approx(slopes_times(moved_to(*said(OTHER))), rel=1e-5, abs=1e-9)


def test_the_baseline_zero_is_nothing_for_features_and_error() -> None:
    nothing = [torch.zeros_like(one) for one in said(IDS)]
    assert at_site(found(baseline="zero")) == pytest.approx(slopes_times(moved_to(*nothing)), rel=1e-5, abs=1e-9)


def test_the_baseline_mean_is_over_the_patch_prompts_slot_by_slot() -> None:
    means = [one.mean(0, keepdim=True) for one in said(OTHER)]
    assert at_site(found(baseline="mean")) == pytest.approx(slopes_times(moved_to(*means)), rel=1e-5, abs=1e-9)


def test_the_baseline_mean_is_over_all_tokens_where_positions_are_summed() -> None:
    means = [one.mean((0, 1), keepdim=True) for one in said(OTHER)]
    expected: dict[str, float] = {}
    for key, value in slopes_times(moved_to(*means)).items():
        expected[key.partition("@")[0]] = expected.get(key.partition("@")[0], 0.0) + value
    summed = feature_circuit(small("gpt2"), SAES, PAIRS, method="gradient", baseline="mean", node_threshold=0.0)
    assert at_site(summed) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_a_baseline_of_vectors_is_split_and_other_sites_stay() -> None:
    vector = torch.linspace(-1, 1, 32, dtype=torch.float64)
    slow = oracle(small("gpt2"), SAES)
    features, vectors = next(part for part in slow.parts if part.key == SITE).split.said(vector, vector)
    circuit = found(baseline={SITE: vector})
    assert at_site(circuit) == pytest.approx(slopes_times(moved_to(features, vectors[0])), rel=1e-5, abs=1e-9)
    assert len(at_site(circuit)) == len(circuit.nodes) - 1


def test_one_vector_is_the_baseline_of_one_dictionary() -> None:
    vector, sae = torch.ones(32, dtype=torch.float64), [one for one in SAES if one.site == "attn_out"][:1]
    circuits = [
        feature_circuit(small("gpt2"), sae, PAIRS, method="gradient", baseline=given, **ALL)
        for given in (vector, {"0.attn_out": vector})
    ]
    assert at_site(circuits[0], "0") == at_site(circuits[1], "0") != {}


def test_without_patch_prompts_units_go_to_zero_and_the_mean_is_of_the_clean_ones() -> None:
    metric = whence.logit_difference(7, 5)
    plain, zero, mean = (
        feature_circuit(small("gpt2"), SAES, IDS, metric=metric, method="gradient", baseline=given, **ALL)
        for given in (None, "zero", "mean")
    )
    assert at_site(plain) == at_site(zero)
    assert plain.provenance["baseline"] == "zero"
    assert at_site(mean) != at_site(zero)


@pytest.mark.parametrize("rule", ["midpoint", "left"])
def test_integrated_gradients_are_the_mean_slope_along_the_way(rule: str) -> None:
    """Each point is a run of the whole model with the site's vector moved part of the way."""
    slow, steps = oracle(small("gpt2"), SAES), 4
    x, y = (slow.values(ids)[SITE][0] for ids in (IDS, OTHER))
    slope = torch.zeros_like(x)
    for step in range(steps):
        at = (step + (0.5 if rule == "midpoint" else 0)) / steps
        there = (x + at * (y - x)).requires_grad_()
        metric = slow.run(IDS, lambda part, _, there=there: there if part.key == SITE else None)
        slope += torch.autograd.grad(metric.sum(), there)[0] / steps
    expected = by_key((slope[..., None, :] * moved_to(*said(OTHER))).sum(-1).mean(0))
    circuit = found(method="integrated_gradients", steps=steps, rule=rule)
    assert at_site(circuit) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def gap(circuit: Circuit) -> float:
    return circuit.provenance["report"]["largest completeness gap"]


def test_integrated_gradients_sum_to_what_the_site_does_and_gradients_do_not() -> None:
    few, many, left = (
        found(method="integrated_gradients", steps=steps, rule=rule)
        for steps, rule in ((4, "midpoint"), (32, "midpoint"), (32, "left"))
    )
    assert gap(many) < 1e-3 < gap(found())
    assert gap(many) < gap(few) / 10
    assert gap(many) < gap(left) / 5
    slopes = at_site(found())
    assert max(abs(effect - slopes[key]) for key, effect in at_site(many).items()) > 1e-2


def test_exact_effects_are_those_of_patching_one_unit_at_one_token() -> None:
    slow = oracle(small("gpt2"), SAES)
    x, moves = slow.values(IDS)[SITE][0], moved_to(*said(OTHER))
    clean = slow.patched(IDS, SITE, x)
    expected = torch.zeros(moves.shape[1:3], dtype=torch.float64)
    for position, unit in (moves != 0).any(-1).any(0).nonzero().tolist():
        y = x.clone()
        y[:, position] += moves[:, position, unit]
        expected[position, unit] = (slow.patched(IDS, SITE, y) - clean).mean()
    assert at_site(found(method="exact")) == pytest.approx(by_key(expected), rel=1e-5, abs=1e-8)


def test_the_metric_says_what_it_does_with_everything_at_its_baseline() -> None:
    slow = oracle(small("gpt2"), SAES)
    total = (slow.run(OTHER, lambda *_: None) - slow.run(IDS, lambda *_: None)).detach()
    assert float(found().effects[-1]) == pytest.approx(float(total.mean()), rel=1e-6)
    samples = found().samples
    assert samples is not None
    assert samples.total.tolist() == pytest.approx(total.tolist(), rel=1e-6)


def test_errors_act_on_what_follows_them() -> None:
    circuit = feature_circuit(small("gpt2"), SAES, PAIRS, method="gradient", node_threshold=0.0, edge_threshold=0.0)
    out_of = {str(edge.source): edge.weight for edge in circuit.edges(10**6) if edge.source.name.endswith("error")}
    assert {f"{layer}.{site}.error" for layer in range(2) for site in ("attn_out", "mlp_out", "resid_post")} <= {
        *out_of
    }
    assert max(map(abs, out_of.values())) > 1e-2


def test_with_vectors_for_some_sites_the_others_follow_them() -> None:
    circuit = found(baseline={"0.resid_post": torch.ones(32, dtype=torch.float64)})
    both = circuit.provenance["completeness"]["0.resid_post"]
    assert circuit.effects[-1].item() == pytest.approx(both[1], rel=1e-6)
    assert abs(both[1]) > 1e-3


def test_embeddings_alone_take_one_vector() -> None:
    circuit = feature_circuit(
        small("gpt2"), ["embed"], PAIRS, baseline=torch.ones(32, dtype=torch.float64), node_threshold=0.0
    )
    assert [str(node) for node in circuit.nodes] == ["embed", "metric"]


def test_a_result_names_the_tokens_it_explains() -> None:
    circuit = feature_circuit(small("gpt2"), SAES, [[5, 9]], None, whence.logit_difference(7, 5), node_threshold=0.0)
    assert circuit.provenance["metric"] == "logit['7'] - logit['5']"


def test_effects_by_patching_are_also_compared_with_whole_sites() -> None:
    assert set(found(method="exact").provenance["completeness"]) >= {"embed", SITE}
