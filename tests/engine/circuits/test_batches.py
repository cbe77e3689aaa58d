"""What else is in a batch, and which units are asked for, changes no edge."""

import pytest
import torch

from circuit_cases import CLEAN, PATCH, Wide, every_unit, pairs, random_saes, small, solved
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.edges import Kept, Linear, direct_edges
from whence.engine.circuits.effects import Asked, gradients
from whence.engine.circuits.measure import answers_measure
from whence.engine.circuits.state import look

FAMILIES = {
    "gpt2": {"attn_out": 32, "mlp_out": 32, "resid_post": 32},
    "gpt_neox": {"attn_out": 32, "mlp_out": 32, "resid_post": 32},
    "gemma2": {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32},
    "llama": {"mlp_out": 32},  # edges of many layers, with attention in between
}


def tables(
    name: str, prompts: list[list[int]], others: list[list[int]], answers: list[int]
) -> dict[object, torch.Tensor]:
    """[example, target, source] of every pair of sites, all units kept."""
    model = small(name)
    network = network_of(model, random_saes(range(2), FAMILIES[name]))
    with Wide(), network.running():
        state, patch = (look(network, network.calls(model.batch(ids))) for ids in (prompts, others))
        delta = {site: patch.said[site].minus(state.said[site]) for site in network.sites}
        measure = answers_measure(CLEAN[answers], PATCH[answers])
        gradient, final = gradients(Asked(network, state, delta, measure, torch.arange(len(prompts))))
        found = direct_edges(Linear(network, state, gradient, final, delta, every_unit(network, final)))
    dense: dict[object, torch.Tensor] = {}
    for (target, source), table in found.items():
        index, weight = table.entries()
        out = torch.zeros(table.shape, dtype=torch.float64)
        out[tuple(index)] = weight
        dense[None if target is None else target.key, source.key] = out
    return dense


@pytest.mark.parametrize("name", list(FAMILIES))
def test_permuted_and_repeated_examples_have_the_same_edges(name: str) -> None:
    ids, other = (one.tolist() for one in pairs())
    plain = tables(name, ids, other, [0, 1])
    again = tables(name, [ids[1], ids[0], ids[1]], [other[1], other[0], other[1]], [1, 0, 1])
    assert plain.keys() == again.keys()
    for key, weights in plain.items():
        torch.testing.assert_close(again[key], weights[[1, 0, 1]], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_shorter_example_has_the_edges_that_it_has_alone(name: str) -> None:
    ids, other = (one.tolist() for one in pairs(length=5))
    short = [ids[0][:3], ids[1]], [other[0][:3], other[1]]
    together = tables(name, *short, [0, 1])
    alone = tables(name, [short[0][0]], [short[1][0]], [0])
    for key, weights in together.items():
        mine = alone[key][0]
        shared = torch.zeros_like(weights[0])
        shared[: mine.shape[0], : mine.shape[1]] = mine
        torch.testing.assert_close(weights[0], shared, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_edges_of_kept_units_are_those_among_all(name: str) -> None:
    model, (ids, other) = small(name), pairs()
    with Wide():
        found = solved(model, random_saes(range(2), FAMILIES[name]), ids, other)
        kept = {site: effects.abs() > effects.abs().median() for site, effects in found.effects.items()}
        few: dict[object, Kept] = {}
        for site, mask in kept.items():
            unit = mask.any(0).any(0).nonzero()[:, 0]
            number = torch.arange(mask[0].numel()).view(mask.shape[1:]).expand_as(mask)
            few[site] = Kept(unit, torch.where(mask, number, -1)[..., unit], mask[0].numel())
        asked = found.asked
        linear = Linear(found.network, asked.clean, found.gradient, found.final, asked.delta, few)
        with found.network.running():
            chosen = direct_edges(linear)
    for (target, source), table in chosen.items():
        index, weight = table.entries()
        out = torch.zeros(table.shape, dtype=torch.float64)
        out[tuple(index)] = weight
        every = (
            found.edges(source.key, None if target is None else target.key).flatten(2)
            * kept[source].flatten(1)[:, None]
        )
        expected = every if target is None else every * kept[target].flatten(1)[..., None]
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-13)


def test_nodes_that_take_all_positions_have_the_summed_edges() -> None:
    model, (ids, other) = small("gpt2"), pairs()
    with Wide():
        found = solved(model, random_saes(range(2), FAMILIES["gpt2"]), ids, other)
        summed = {
            site: Kept(kept.unit, kept.unit.expand_as(kept.number), site.units.count)
            for site, kept in every_unit(found.network, found.final).items()
        }
        linear = Linear(found.network, found.asked.clean, found.gradient, found.final, found.asked.delta, summed)
        with found.network.running():
            tables = direct_edges(linear)
    for (target, source), table in tables.items():
        index, weight = table.entries()
        out = torch.zeros(table.shape, dtype=torch.float64)
        out[tuple(index)] = weight
        every = found.edges(source.key, None if target is None else target.key).sum(2)
        expected = every if target is None else every.unflatten(1, (ids.shape[1], -1)).sum(1)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
