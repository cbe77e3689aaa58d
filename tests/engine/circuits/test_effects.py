"""Effects of units against the whole model with hooks: by gradient, integrated, and patched one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import Wide, asked_of, oracle, pairs, random_saes, random_transcoders, small
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.effects import Asked, Rule, contracted, exact, gradients, integrated, points, whole_site
from whence.engine.circuits.network import CircuitSite

CASES: dict[str, tuple[str, list[Any]]] = {
    "gpt2": ("gpt2", random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})),
    "parallel": ("gpt_neox", random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})),
    "post-norm": ("gemma2", random_saes(range(2), {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32})),
    "skip transcoders": ("llama", [*random_transcoders(range(2), 32, skip=True), "attn.head"]),
    "sublayers": ("gpt2", ["attn", "mlp"]),
}
QUIET = lambda *_: None  # noqa: E731


def effects_by(how: str, name: str, **options: Any) -> tuple[Asked, dict[CircuitSite, Tensor]]:
    family, dictionaries = CASES[name]
    model, (ids, other) = small(family), pairs()
    network = network_of(model, dictionaries)
    with Wide(), network.running():
        asked = asked_of(model, dictionaries, ids, other, network)
        if how == "gradient":
            return asked, contracted(asked, gradients(asked)[0])
        if how == "exact":
            return asked, exact(asked, options["rows"], QUIET)
        return asked, contracted(asked, integrated(asked, options["steps"], options["rule"]))


@pytest.mark.parametrize("name", list(CASES))
def test_gradient_effects_are_autograds_on_the_plain_model(name: str) -> None:
    family, dictionaries = CASES[name]
    model, (ids, other) = small(family), pairs()
    with Wide():
        slow = oracle(model, dictionaries)
        gradient = slow.gradients(ids)
        found = effects_by("gradient", name)[1]
        for site, effects in found.items():
            expected = torch.einsum("bsd,bsud->bsu", gradient[site.key], slow.moves(ids, other, site.key))
            torch.testing.assert_close(effects, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", list(CASES))
def test_exact_effects_are_patched_one_by_one(name: str) -> None:
    family, dictionaries = CASES[name]
    model, (ids, other) = small(family), pairs()
    with Wide():
        slow = oracle(model, dictionaries)
        found = effects_by("exact", name, rows=3)[1]
        clean = slow.run(ids, QUIET).detach()
        for site, effects in found.items():
            x, moves = slow.values(ids)[site.key][0], slow.moves(ids, other, site.key)
            expected = torch.zeros_like(effects)
            for position in range(x.shape[1]):
                for unit in range(moves.shape[2]):
                    value = x.clone()
                    value[:, position] += moves[:, position, unit]
                    expected[:, position, unit] = slow.patched(ids, site.key, value) - clean
            torch.testing.assert_close(effects, expected, rtol=1e-9, atol=1e-12)


def test_exact_effects_do_not_depend_on_how_many_are_patched_at_once() -> None:
    _, once = effects_by("exact", "gpt2", rows=1)
    _, many = effects_by("exact", "gpt2", rows=500)
    for mine, theirs in zip(once.values(), many.values(), strict=True):
        assert float(mine.abs().max()) > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


def test_progress_of_exact_patching_ends_at_the_last_turn() -> None:
    family, dictionaries = CASES["sublayers"]
    model, (ids, other) = small(family), pairs()
    network = network_of(model, dictionaries)
    told: list[tuple[str, int, int]] = []
    with network.running():
        asked = asked_of(model, dictionaries, ids, other, network)
        exact(asked, 2, lambda site, done, of: told.append((site.key, done, of)))
    assert {key for key, _, _ in told} == {site.key for site in network.sites}
    assert all(any(done == of for key, done, of in told if key == site.key) for site in network.sites)


@pytest.mark.parametrize("name", ["gpt2", "parallel", "post-norm"])
def test_a_whole_sites_effect_is_the_metric_with_it_patched(name: str) -> None:
    family, dictionaries = CASES[name]
    model, (ids, other) = small(family), pairs()
    network = network_of(model, dictionaries)
    with Wide():
        slow = oracle(model, dictionaries)
        with network.running():
            found = whole_site(asked_of(model, dictionaries, ids, other, network))
        patch, clean = slow.values(other), slow.run(ids, QUIET).detach()
        for site, effect in found.items():
            expected = slow.patched(ids, site.key, patch[site.key][0]) - clean
            torch.testing.assert_close(effect, expected, rtol=1e-9, atol=1e-12)


def gap(name: str, steps: int, rule: Rule) -> float:
    """The largest difference between a site's summed effects and what patching all of it does."""
    asked, effects = effects_by("integrated", name, steps=steps, rule=rule)
    with Wide(), asked.network.running():
        whole = whole_site(asked)
    return max(float((effects[site].sum((1, 2)) - whole[site]).abs().max()) for site in effects)


@pytest.mark.parametrize("name", ["gpt2", "parallel"])
def test_the_gap_of_integrated_gradients_shrinks_as_its_rule_says(name: str) -> None:
    middle = [gap(name, steps, "midpoint") for steps in (16, 32)]
    left = [gap(name, steps, "left") for steps in (16, 32)]
    assert 3.5 < middle[0] / middle[1] < 4.5
    assert 1.7 < left[0] / left[1] < 2.3
    assert middle[1] < left[1] / 10


def test_integrated_gradients_are_not_the_gradient() -> None:
    _, once = effects_by("gradient", "gpt2")
    _, along = effects_by("integrated", "gpt2", steps=16, rule="midpoint")
    _, first = effects_by("integrated", "gpt2", steps=1, rule="left")
    for one, many, start in zip(once.values(), along.values(), first.values(), strict=True):
        assert float((one - many).abs().max()) > 1e-3
        torch.testing.assert_close(one, start, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "rule", "expected"), [(2, "midpoint", [0.25, 0.75]), (4, "left", [0, 0.25, 0.5, 0.75])]
)
def test_points_lie_where_the_rule_puts_them(steps: int, rule: Rule, expected: list[float]) -> None:
    assert points(steps, rule).tolist() == expected
