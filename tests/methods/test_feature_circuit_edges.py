"""Edges by integrated gradients: what they sum to, and targets that say nothing on the clean prompt."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import CLEAN, PATCH, oracle, pairs, random_saes, small
from whence.methods.circuit import feature_circuit
from whence.methods.circuit_object import Circuit
from whence.targets.pairs import Pairs

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
FAMILIES = ("gpt2", "gpt_neox")
SAES = random_saes(range(2), THREE)
IDS, OTHER = pairs()
rows = lambda tensor: tuple(map(tuple, tensor.tolist()))  # noqa: E731
PAIRS = Pairs(rows(IDS), rows(OTHER), tuple(CLEAN.tolist()), tuple(PATCH.tolist()))


def found(name: str, **settings: Any) -> Circuit:
    every = {"method": "gradient", "node_threshold": 0.0, "edge_threshold": 0.0, "aggregate": "none"}
    return feature_circuit(small(name), SAES, PAIRS, **(every | settings))


def into(circuit: Circuit) -> dict[str, float]:
    sums: dict[str, float] = {}
    for edge in circuit.edges(10**6):
        sums[str(edge.target)] = sums.get(str(edge.target), 0.0) + edge.weight
    return sums


def taken_by_parents(name: str) -> dict[str, float]:
    """How far each unit's number goes when all other parts are clamped to what they say on the other prompt."""
    slow = oracle(small(name), SAES)
    gradient, clean, patch = slow.gradients(IDS), slow.values(IDS), slow.values(OTHER)
    with torch.no_grad():
        there, _ = slow.arriving(OTHER, lambda part, _: patch[part.key][0])
    here = clean
    sums: dict[str, float] = {}
    for part in slow.parts:
        if part.key == "embed":
            continue
        numbers = [part.split.numbers(*one[part.key], gradient[part.key]) for one in (there, here)]
        _add(sums, part.key, (numbers[0] - numbers[1]).mean(0))
    return sums


def _add(sums: dict[str, float], site: str, table: Tensor) -> None:
    for position, unit in table.nonzero().tolist():
        end = "error" if unit == table.shape[1] - 1 else f"feature:{unit}"
        sums[f"{site}.{end}@{position}"] = float(table[position, unit])


def missed(name: str, **settings: Any) -> float:
    """By how much in-edges differ from what the parents do; the largest, over all nodes that have any."""
    sums, expected = into(found(name, **settings)), taken_by_parents(name)
    kept = [key for key in sums if key != "metric"]
    assert len(kept) > 30
    return max(abs(sums[key] - expected.get(key, 0.0)) for key in kept)


@pytest.mark.parametrize("name", FAMILIES)
def test_integrated_edges_into_a_unit_sum_to_what_its_parents_do(name: str) -> None:
    few, many = (missed(name, edge_gradient="integrated_gradients", steps=steps) for steps in (4, 64))
    assert many < 5e-3
    assert many < few / 5
    assert missed(name) > 10 * many


@pytest.mark.parametrize("name", FAMILIES)
def test_nodes_that_say_nothing_on_the_clean_prompts_are_counted(name: str) -> None:
    circuit = found(name, node_threshold=1e-3)
    slow = oracle(small(name), SAES)
    values, closed = slow.values(IDS), []
    for key in (str(node) for node in circuit.nodes):
        site, _, unit = key.partition(".feature:")
        if unit:
            index, _, position = unit.partition("@")
            features, _ = next(part for part in slow.parts if part.key == site).split.said(*values[site])
            closed += [key] if not features[:, int(position), int(index)].any() else []
    assert circuit.provenance["report"]["closed gates"] == len(closed) > 5
    assert not any(circuit.into(key) for key in closed)
    along = found(name, node_threshold=1e-3, edge_gradient="integrated_gradients", steps=16)
    first = [key for key in closed if not key.startswith("embed")]
    assert sum(bool(along.into(key)) for key in first) > 0.7 * len(first)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "exact"])
@pytest.mark.parametrize("aggregate", ["sum", "none"])
def test_edges_from_the_last_stream_into_the_metric_are_the_effects(method: Any, aggregate: Any) -> None:
    circuit = feature_circuit(
        small("gpt2"), SAES, PAIRS, method=method, aggregate=aggregate, node_threshold=0.0, edge_threshold=0.0
    )
    effects = dict(zip(map(str, circuit.nodes), circuit.effects.tolist(), strict=True))
    into = {str(edge.source): edge.weight for edge in circuit.into("metric")}
    assert into
    assert into == pytest.approx({key: value for key, value in effects.items() if key.startswith("1.resid_post")})
