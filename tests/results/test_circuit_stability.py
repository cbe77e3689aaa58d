"""The bootstrap against draws one by one, and against circuits whose answer is known."""

from dataclasses import replace

import pytest
import torch

from circuits import random_circuit, small_circuit
from whence.results import circuit_stability
from whence.results.circuit_data import CircuitData


def _by_draws(circuit: CircuitData, n: int, seed: int, node: float, edge: float) -> dict[str, torch.Tensor]:
    """Each resample as a data set of its own."""
    samples = circuit.samples
    assert samples is not None
    effects = torch.zeros(circuit.examples, len(samples.candidates), dtype=torch.float64)
    effects[samples.example, samples.candidate] = samples.effect.double()
    drawn = torch.randint(circuit.examples, (n, circuit.examples), generator=torch.Generator().manual_seed(seed))
    found: dict[str, list[torch.Tensor]] = {"node": [], "edge": [], "node jaccard": [], "edge jaccard": []}
    for examples in drawn:
        for name, numbers, threshold in (("node", effects, node), ("edge", samples.edge.double(), edge)):
            mean, whole = numbers[examples].mean(0), numbers.mean(0)
            one, other = (set((m.abs() > threshold).nonzero().flatten().tolist()) for m in (mean, whole))
            found[name].append(mean)
            alike = len(one & other) / len(one | other) if one | other else 1.0
            found[f"{name} jaccard"].append(torch.tensor(alike, dtype=torch.float64))
    return {name: torch.stack(numbers) for name, numbers in found.items()}


@pytest.mark.parametrize("at_once", [None, 64])
def test_the_bootstrap_is_that_of_draws_one_by_one(monkeypatch: pytest.MonkeyPatch, at_once: int | None) -> None:
    if at_once:
        monkeypatch.setattr(circuit_stability, "NUMBERS_AT_ONCE", at_once)
    circuit = random_circuit(3)
    found = circuit.stability(40, 5, node_threshold=0.7, edge_threshold=0.5, level=0.9)
    wanted = _by_draws(circuit, 40, 5, 0.7, 0.5)
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64)

    for spread, name, threshold in ((found.node, "node", 0.7), (found.edge, "edge", 0.5)):
        low, high = wanted[name].quantile(ends, 0)
        torch.testing.assert_close(spread.low, low, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(spread.high, high, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(spread.kept, (wanted[name].abs() > threshold).double().mean(0))
        torch.testing.assert_close(spread.jaccard, wanted[f"{name} jaccard"], rtol=1e-12, atol=0)
    assert found.node_jaccard[0] == pytest.approx(float(wanted["node jaccard"].mean()))


def test_the_same_seed_gives_the_same_draws_and_another_does_not() -> None:
    circuit = random_circuit(1)
    one, again, other = (circuit.stability(50, seed, node_threshold=1.0, edge_threshold=1.0) for seed in (0, 0, 1))

    assert torch.equal(one.node.low, again.node.low)
    assert not torch.equal(one.node.low, other.node.low)


def test_examples_that_all_say_the_same_leave_nothing_open() -> None:
    circuit = random_circuit(2, examples=1)
    found = circuit.stability(30)

    assert found.node_jaccard == found.edge_jaccard == (1.0, 1.0, 1.0)
    torch.testing.assert_close(found.node.low, circuit.effects[:-1])
    torch.testing.assert_close(found.node.high, circuit.effects[:-1])


def test_a_node_that_one_of_two_examples_carries_is_drawn_three_times_in_four() -> None:
    # feature 4 of layer 0 has the effect 0.125 in the first of two examples: its mean is 0, 1/16 or 1/8.
    found = small_circuit().stability(4000, node_threshold=0.01, edge_threshold=0.2)
    key = [str(edge) for edge in zip(found.source.tolist(), found.target.tolist(), strict=True)]

    assert [str(node) for node in found.nodes] == ["0.mlp_out.feature:3", "0.mlp_out.error", "1.resid_post.feature:7"]
    assert found.node.kept.tolist() == pytest.approx([1.0, 0.75, 1.0], abs=0.03)
    assert (float(found.node.low[2]), float(found.node.high[2])) == (1.0, 3.0)
    assert found.edge.kept.tolist() == pytest.approx([0.75, 0.75, 1.0, 0.25], abs=0.03)
    assert len(key) == 4


def test_thresholds_come_from_the_circuit_where_none_are_given() -> None:
    assert small_circuit().stability(5).thresholds == {"node": 0.1, "edge": 0.01}
    with pytest.raises(ValueError, match="does not say at which node threshold"):
        small_circuit(provenance={}).stability(5, edge_threshold=0.1)


def test_a_kept_node_that_no_example_has_an_effect_at_is_zero() -> None:
    circuit = small_circuit()
    assert circuit.samples is not None
    none = torch.zeros(0, dtype=torch.int64)
    samples = replace(circuit.samples, example=none, candidate=none, effect=torch.zeros(0))
    found = replace(circuit, samples=samples).stability(5)

    assert found.node.high.tolist() == [0.0, 0.0, 0.0]
    assert found.node_jaccard == (1.0, 1.0, 1.0)


def test_without_edges_there_is_nothing_to_differ() -> None:
    circuit = small_circuit().threshold(node=10.0)

    assert circuit.stability(5).edge_jaccard == (1.0, 1.0, 1.0)


def test_without_samples_there_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match=r"has no samples.*Ask a circuit that whence\.feature_circuit"):
        small_circuit(samples=None).stability()
    with pytest.raises(ValueError, match="at least one resample"):
        small_circuit().stability(0)
    with pytest.raises(ValueError, match="a level within 0 to 1"):
        small_circuit().stability(level=1.0)


def test_it_says_what_stays() -> None:
    found = small_circuit().stability(20)
    said = str(found)

    assert said.startswith("Jaccard of nodes {:.2f} ({:.2f} to {:.2f}), of edges ".format(*found.node_jaccard))
    assert said.endswith("20 resamples")
    assert found.table(2).row_count == 2 + 2


def test_the_table_has_the_strongest_edges_below_the_nodes() -> None:
    found = small_circuit().stability(4000, node_threshold=0.01, edge_threshold=0.2)
    names, effects, low, high, kept = (list(column.cells) for column in found.table(2).columns)

    assert [str(name) for name in names] == [
        "1.resid_post.feature:7",
        "0.mlp_out.feature:3",
        "1.resid_post.feature:7 -> metric",
        "0.mlp_out.feature:3 -> 1.resid_post.feature:7",
    ]
    assert (effects[2], low[2], high[2], kept[2]) == ("+2.000", "+1.000", "+3.000", "100%")
    assert int(kept[3].rstrip("%")) == pytest.approx(75, abs=3)
    assert small_circuit().threshold(node=10.0).stability(5).table().row_count == 0


def _strongest(circuit: CircuitData, numbers: torch.Tensor, k: int, limit: float) -> set[str]:
    assert circuit.samples is not None
    size = numbers.mean(0).abs()
    return {str(circuit.samples.candidates[i]) for i in size.argsort(descending=True)[:k].tolist() if size[i] > limit}


@pytest.mark.parametrize("at_once", [None, 64])
@pytest.mark.parametrize(("k", "limit"), [(0, 0.0), (1, 0.0), (5, 0.0), (5, 1.0), (1000, 0.0)])
def test_the_strongest_nodes_are_drawn_as_the_strongest_nodes(
    monkeypatch: pytest.MonkeyPatch, at_once: int | None, k: int, limit: float
) -> None:
    if at_once:
        monkeypatch.setattr(circuit_stability, "NUMBERS_AT_ONCE", at_once)
    whole = random_circuit(4)
    circuit, samples = whole.threshold(node=limit).top(k), whole.samples
    assert samples is not None
    effects = torch.zeros(8, len(samples.candidates), dtype=torch.float64)
    effects[samples.example, samples.candidate] = samples.effect.double()
    own = {str(node) for node in circuit.nodes} - {"metric"}
    drawn = torch.randint(8, (30, 8), generator=torch.Generator().manual_seed(2))
    sets = [_strongest(whole, effects[examples], k, limit) for examples in drawn]
    found = circuit.stability(30, 2)

    assert own == _strongest(whole, effects, k, limit)
    alike = [len(one & own) / len(one | own) if one | own else 1.0 for one in sets]
    assert found.node.jaccard.tolist() == pytest.approx(alike, rel=1e-12)
    kept = [sum(str(node) in one for one in sets) / 30 for node in found.nodes]
    assert found.node.kept.tolist() == pytest.approx(kept, rel=1e-12)
    assert (found.top, found.thresholds["node"]) == (k, limit)


def test_a_threshold_that_is_given_goes_before_the_strongest() -> None:
    circuit = random_circuit(4)
    top, cut = (one.stability(30, node_threshold=0.7) for one in (circuit.top(5), circuit))

    assert torch.equal(top.node.jaccard, cut.node.jaccard)
    assert top.top is None


def test_what_single_examples_kept_is_not_compared_with_means() -> None:
    circuit = small_circuit(provenance={"gate": "per_example", "thresholds": {"node": 0.1, "edge": 0.01}})
    for one in (circuit, circuit.top(2), circuit.threshold(node=0.2)):
        with pytest.raises(ValueError, match=r"kept by what single examples say .* Give node_threshold="):
            one.stability(5)
    assert circuit.stability(5, node_threshold=0.1).thresholds == {"node": 0.1, "edge": 0.01}


def test_a_circuit_that_was_cut_twice_was_cut_at_the_stricter_of_the_two() -> None:
    circuit = random_circuit(4)

    assert circuit.threshold(node=1.0, edge=0.5).threshold(node=0.2).stability(5).thresholds == {
        "node": 1.0,
        "edge": 0.5,
    }
    assert circuit.top(3).top(5).stability(5).top == circuit.top(5).top(3).stability(5).top == 3
    assert circuit.top(3).stability(5).thresholds["node"] == 0.0
