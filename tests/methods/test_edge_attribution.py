from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import whence
from circuit_cases import CLEAN, PATCH, Wide, asked_of, metric, pairs, small, solved
from edge_oracle import EdgeOracle, ungrouped
from families import loaded, prompts
from whence.engine.circuits.baseline import baseline_of
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.effects import Asked, contracted, gradients, integrated
from whence.engine.circuits.examples import examples_of
from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.state import look
from whence.errors import UnsupportedModelError, WhenceError
from whence.methods.circuit_object import Circuit
from whence.methods.edge_attribution import edge_attribution
from whence.model.model import Model
from whence.targets.pairs import Pairs

FAMILIES = ["gpt2", "gpt_neox", "llama", "gemma2"]


def pairs_of(clean: Tensor, other: Tensor | None) -> Pairs:
    rows = lambda ids: tuple(map(tuple, ids.tolist()))  # noqa: E731
    answers = tuple(CLEAN.tolist())[: len(clean)], tuple(PATCH.tolist())[: len(clean)]
    return Pairs(rows(clean), None if other is None else rows(other), *answers)


def attributed(model: Model, **options: Any) -> Circuit:
    with Wide():
        return edge_attribution(model, pairs_of(*pairs(5)), **options)


def weight(circuit: Circuit, source: str, target: str) -> float:
    row, column = circuit.nodes.find(target), circuit.nodes.find(source)
    return float(circuit.weights.dense()[row, column])


def edges(circuit: Circuit) -> dict[tuple[str, str], float]:
    """Without those from ends to their heads and from MLPs to their neurons."""
    keys = [str(node) for node in circuit.nodes]
    rows, columns, values = circuit.weights.coo()
    found = {
        (keys[source], keys[target]): value
        for target, source, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True)
    }
    inside = {(a, b) for a, b in found if a.startswith(f"{b}.") or b.startswith(f"{a}.")}
    return {ends: value for ends, value in found.items() if ends not in inside}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_is_what_moving_one_reader_alone_says(family: str) -> None:
    model = small(family)
    circuit = attributed(model, batch_size=1)
    with Wide():
        expected = EdgeOracle(ungrouped(model.hf)).scores(*pairs(5), metric)
    found = edges(circuit)
    scale = max(float(one.abs().max()) for one in expected.values())
    assert found.keys() <= expected.keys()
    for ends, score in expected.items():
        assert found.get(ends, 0.0) == pytest.approx(float(score.mean()), abs=1e-11 * scale), ends


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "olmo2", "gpt_oss"])
def test_ends_sum_to_the_edges_between_whole_units(family: str) -> None:
    model = small(family)
    whole = attributed(model, by_input=False)
    split = edges(attributed(model))
    with Wide():
        circuit = solved(model, ["attn.head", "mlp"], *pairs(5))
    for target in (None, *circuit.network.sites):
        for source in circuit.network.sites:
            found = circuit.edges(source.key, None if target is None else target.key)
            units = 1 if target is None else target.units.count
            summed = found.unflatten(1, (-1, units)).sum((1, 3)).mean(0)
            for row, column in torch.cartesian_prod(torch.arange(units), torch.arange(source.units.count)).tolist():
                ends = key(source, column), "metric" if target is None else key(target, row)
                assert edges(whole).get(ends, 0.0) == pytest.approx(float(summed[row, column]), abs=1e-10), ends
                parts = sum(split.get((ends[0], f"{ends[1]}.{end}"), 0.0) for end in "qkv")
                assert split.get(ends, 0.0) + parts == pytest.approx(float(summed[row, column]), abs=1e-10), ends


def key(site: CircuitSite, unit: int) -> str:
    end, index = site.units.name(unit)
    return f"{site.key}.{end}:{index}" if end else site.key


@pytest.mark.parametrize("options", [{}, {"method": "integrated_gradients", "path": "activations", "steps": 3}])
def test_edges_out_of_a_unit_sum_to_its_effect_by_the_same_gradient(options: dict[str, Any]) -> None:
    model = small("gpt2")
    circuit = attributed(model, **options)
    with Wide():
        network = network_of(model, ["attn.head", "mlp"])
        with network.running():
            asked = asked_of(model, None, *pairs(5), network)
            found = integrated(asked, 3, "midpoint") if options else gradients(asked)[0]
            effects = contracted(asked, found)
    for site, effect in effects.items():
        for unit, expected in enumerate(effect.sum(1).mean(0).tolist()):
            row = circuit.nodes.find(key(site, unit))
            assert float(circuit.effects[row]) == pytest.approx(expected, abs=1e-12)
            assert float(circuit.weights.dense()[:, row].sum()) == pytest.approx(expected, abs=1e-12)
    assert circuit.provenance["report"]["edges_miss_effects_by"] < 1e-14


@pytest.mark.parametrize(("path", "sites"), [("inputs", ["embed"]), ("activations", ["embed", "0.attn", "1.mlp"])])
def test_averaged_along_a_path_edges_out_of_a_site_sum_to_what_it_does_to_the_metric(
    path: str, sites: list[str]
) -> None:
    model = small("gpt2")
    gaps = [
        [abs(sums["edges"] - sums["change"]) for sums in (completeness[site] for site in sites)]
        for completeness in (
            attributed(model, method="integrated_gradients", path=path, steps=steps).provenance["report"][
                "completeness"
            ]
            for steps in (32, 128)
        )
    ]
    for coarse, fine in zip(*gaps, strict=True):
        assert fine < 0.08 * coarse  # the midpoint's error falls with the square of the points
        assert fine < 2e-4


def test_with_patched_inputs_the_path_ends_at_the_patch_run() -> None:
    circuit = attributed(small("gpt2"), method="integrated_gradients", steps=64)
    assert circuit.provenance["report"]["completeness"]["embed"]["change"] == pytest.approx(circuit.total, abs=1e-12)
    assert float(circuit.effects[circuit.nodes.find("embed")]) == pytest.approx(circuit.total, abs=1e-3)


def test_what_reaches_an_end_flows_on_to_its_head() -> None:
    circuit = attributed(small("llama"))
    head = circuit.nodes.find("1.attn.head:3")
    into = float(circuit.weights.row(head)[1].sum())
    for end in "qkv":
        row = circuit.nodes.find(f"1.attn.head:3.{end}")
        reached = float(circuit.weights.row(row)[1].sum())
        assert weight(circuit, f"1.attn.head:3.{end}", "1.attn.head:3") == pytest.approx(reached)
        assert float(circuit.effects[row]) == pytest.approx(reached)
        into -= reached
    assert into == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"method": "integrated_gradients"}, {"units": ("attn.head", "mlp.neuron")}])
def test_scores_are_means_over_examples_whatever_the_batch(options: dict[str, Any]) -> None:
    model = small("gpt2")
    rows = prompts(5, 6).tolist()
    given = [row[: 3 + number % 3] for number, row in enumerate(rows)]  # of three lengths
    both = [
        edge_attribution(model, given, metric=whence.logit_difference(7, 9), batch_size=size, **options)
        for size in (1, 3)
    ]
    alone = [edge_attribution(model, [one], metric=whence.logit_difference(7, 9), **options) for one in given]
    dense = [circuit.weights.dense() for circuit in both]
    torch.testing.assert_close(dense[0], dense[1], atol=1e-13, rtol=1e-10)
    mean = sum(one.weights.dense() for one in alone) / len(alone)
    torch.testing.assert_close(dense[0], mean, atol=1e-13, rtol=1e-10)
    torch.testing.assert_close(both[0].effects, sum(one.effects for one in alone) / len(alone))


def test_examples_are_kept_with_their_edges() -> None:
    circuit = attributed(small("gpt2"), batch_size=1)
    assert circuit.samples is not None
    rows, columns, values = circuit.weights.coo()
    at = {ends: place for place, ends in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
    for place, ends in enumerate(zip(circuit.samples.target.tolist(), circuit.samples.source.tolist(), strict=True)):
        assert float(circuit.samples.edge[:, place].mean()) == pytest.approx(
            float(values[at[ends]]), rel=1e-5, abs=1e-9
        )
    assert circuit.stability(20, node_threshold=0.1, edge_threshold=0.05).node_jaccard[0] <= 1.0


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_neurons_share_the_edges_of_their_mlp(family: str) -> None:
    model = small(family)
    whole, split = attributed(model), attributed(model, units=("attn.head", "mlp.neuron"))
    own, parts = edges(whole), edges(split)
    summed: dict[tuple[str, str], float] = {}
    for (source, target), value in parts.items():
        ends = source.partition(".neuron")[0], target
        summed[ends] = summed.get(ends, 0.0) + value
    assert summed.keys() == own.keys()
    for ends, value in own.items():
        assert summed[ends] == pytest.approx(value, abs=1e-11), ends
    row = split.nodes.find("1.mlp")
    through = float(split.weights.column(row)[1].sum())
    assert through == pytest.approx(float(split.weights.row(row)[1].sum()), abs=1e-11)


def test_behind_a_post_norm_a_neuron_writes_by_the_norms_derivative() -> None:
    model = small("gemma2")
    circuit = attributed(model, units=("attn.head", "mlp.neuron"))
    with Wide():
        found = solved(model, ["attn.head", "mlp.neuron"], *pairs(5))
    for site, target in (("0.mlp", None), ("0.mlp", "1.attn")):
        expected = found.edges(site, target).sum((0, 1, 2)) / 2
        columns = [circuit.nodes.find(f"{site}.neuron:{unit}") for unit in range(len(expected))]
        names = ["metric"] if target is None else [f"{target}.head:{head}.{end}" for head in range(4) for end in "qkv"]
        rows = [circuit.nodes.find(name) for name in names]
        torch.testing.assert_close(circuit.weights.dense()[rows][:, columns].sum(0), expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_other_baselines_move_units_there(baseline: Any) -> None:
    model = small("gpt2")
    circuit = attributed(model, baseline=baseline)
    with Wide():
        network = network_of(model, ["attn.head", "mlp"])
        with network.running():
            examples = examples_of(model, pairs_of(*pairs(5)), None, None, aligned=False)
            part = next(examples.parts(2))
            clean = look(network, network.calls(part.clean))
            delta = baseline_of(network, examples, baseline, 2).delta(network, part, clean)
            asked = Asked(network, clean, delta, examples.measure, part.example)
            effects = contracted(asked, gradients(asked)[0])
    for site, effect in effects.items():
        for unit, expected in enumerate(effect.sum(1).mean(0).tolist()):
            assert float(circuit.effects[circuit.nodes.find(key(site, unit))]) == pytest.approx(expected, abs=1e-12)


def test_a_file_of_edges_holds_every_score(tmp_path: Path) -> None:
    for family in ("gpt2", "gpt_neox"):
        circuit = attributed(small(family))
        again = Circuit.from_mib(circuit.to_mib(tmp_path / f"{family}.json"))
        assert edges(again) == edges(circuit)
        torch.testing.assert_close(again.effects[-1], circuit.effects[-1])


@pytest.mark.parametrize("by_input", [True, False])
def test_a_saved_circuit_says_what_it_was_found_with(by_input: bool, tmp_path: Path) -> None:
    model, examples = small("gpt2"), pairs_of(*pairs(5))
    circuit = Circuit.load(attributed(model, by_input=by_input).save(tmp_path / "run"))
    units = circuit.provenance["dictionaries"]
    assert units == ["attn.head", "mlp"]
    assert circuit.provenance["pairs"] == {"count": 2, "source": examples.source, "dropped": {}}
    for edges in (False, True):
        how: dict[str, Any] = {"embeddings": "default", "ablation": "resample", "edges": edges}
        assert circuit.faithfulness(model, units, examples, **how).value == pytest.approx(1.0)
        assert circuit.completeness(model, units, examples, **how).value == pytest.approx(0.0, abs=1e-9)


def test_a_metric_that_is_flat_at_the_clean_run_is_refused() -> None:
    model = small("gpt2")
    clean, other = (one[:1].tolist() for one in pairs(5))
    with torch.no_grad():
        reference = model.hf(torch.tensor(clean)).logits[0, -1]
    divergence = whence.kl_divergence(reference)
    with pytest.raises(WhenceError, match="divergence from that very run"):
        edge_attribution(model, clean, other, divergence)
    circuit = edge_attribution(model, clean, other, divergence, method="integrated_gradients", steps=64)
    assert float(circuit.effects[0]) == pytest.approx(circuit.total, rel=1e-3)


def test_prompts_of_other_lengths_have_no_patch() -> None:
    with pytest.raises(ValueError, match="3 tokens and the patch prompt 2"):
        edge_attribution(small("gpt2"), [[5, 6, 7]], [[5, 6]], whence.logit_difference(7, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": ("mlp",)}, r"units=\('mlp',\)"),
        ({"method": "exact"}, "method='exact'"),
        ({"path": "outputs"}, "path='outputs'"),
        ({"rule": "right"}, "rule='right'"),
        ({"baseline": "noise"}, "baseline='noise'"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unwrap(edge_attribution)(small("gpt2"), pairs_of(*pairs(5)), **options)  # unchecked types, as a user has them


@pytest.mark.parametrize(("family", "message"), [("falcon", "attention patterns"), ("falcon_h1", "0.ssm")])
def test_models_whose_edges_cannot_be_told_are_refused(family: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        edge_attribution(loaded(family), pairs_of(*pairs(5)))


def test_progress_counts_examples() -> None:
    told: list[tuple[str, int, int]] = []
    attributed(small("gpt2"), batch_size=1, progress=lambda *report: told.append(report))
    assert told == [("edges", 1, 2), ("edges", 2, 2)]


def one_token(family: str) -> Circuit:
    with Wide():
        return edge_attribution(small(family), pairs_of(torch.tensor([[8]]), torch.tensor([[18]])))


def ends_of(circuit: Circuit) -> set[str]:
    return {target.rpartition(".")[2] for _, target in edges(circuit) if ".head:" in target}


def test_a_prompt_of_one_token_has_edges_through_values_alone() -> None:
    assert ends_of(one_token("gpt2")) == {"v"}


def test_with_sinks_a_prompt_of_one_token_has_edges_through_queries_and_keys_as_well() -> None:
    model, circuit = small("gpt_oss"), one_token("gpt_oss")
    assert ends_of(circuit) == {"q", "k", "v"}
    with Wide():
        found = solved(model, ["attn.head", "mlp"], torch.tensor([[8]]), torch.tensor([[18]]))
    for head, expected in enumerate(found.edges("0.mlp", "1.attn")[0, 0, 0].tolist()):
        parts = sum(weight(circuit, "0.mlp", f"1.attn.head:{head}.{end}") for end in "qkv")
        assert parts == pytest.approx(expected, abs=1e-12)


def test_with_sinks_prompts_of_one_token_may_run_with_longer_ones_or_alone() -> None:
    given = [[8], [18, 5, 9], [4]]
    with Wide():
        both = [
            edge_attribution(small("gpt_oss"), given, metric=whence.logit_difference(7, 9), batch_size=size)
            for size in (1, 3)
        ]
    torch.testing.assert_close(both[0].weights.dense(), both[1].weights.dense(), atol=1e-12, rtol=1e-9)
