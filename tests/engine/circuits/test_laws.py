"""What must hold of edges whatever the numbers are: sums, slopes, indirect paths, and what cannot be."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import CLEAN, PATCH, Wide, metric, oracle, pairs, random_saes, small, solved
from whence.components.activation import Activation
from whence.model.model import Model

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
FAMILIES = {
    "gpt2": THREE,
    "gpt_neox": THREE,
    "gpt_neox sequential": THREE,
    "gemma2": {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32},
}
LINEAR = Activation("jumprelu", threshold=torch.tensor(-torch.inf), relu=False)
FLAT = {"gpt2": "layer_norm_epsilon", "gpt_neox": "layer_norm_eps", "gpt_neox sequential": "layer_norm_eps"}


def affine(name: str) -> Model:
    """Norms too wide to bend, attention that does not look at what tokens say, no nonlinearity."""
    act = "activation_function" if name == "gpt2" else "hidden_act"
    model = small(name, **{FLAT[name]: 1e14, act: "linear"})
    with torch.no_grad():
        for key, parameter in model.hf.named_parameters():
            if ("ln_" in key or "norm" in key) and key.endswith("weight"):
                parameter.mul_(1e7)
            if key.endswith("c_attn.weight"):  # queries are their bias; keys are all but the same
                parameter[:, :32] = 0.0
                parameter[:, 32:64] *= 1e-9
            if key.endswith("query_key_value.weight"):  # queries and keys are their bias and where they are
                parameter.view(4, 3, 8, -1)[:, :2] = 0.0
    return model


@pytest.mark.parametrize("name", list(FLAT))
def test_in_edges_sum_to_the_effect_in_an_affine_model(name: str) -> None:
    model, (ids, other) = affine(name), pairs()
    saes = random_saes(range(2), THREE, activation=lambda _: LINEAR)
    with Wide():
        found = solved(model, saes, ids, other)
        slow = oracle(model, saes)
        with torch.no_grad():
            total = slow.run(other, lambda *_: None) - slow.run(ids, lambda *_: None)
    keys = [site.key for site in found.network.sites]
    for site in found.network.sites[1:]:
        into = sum(found.edges(source, site.key).sum((2, 3)) for source in keys)
        assert float(found.effects[site].abs().max()) > 1e-3
        atol = 1e-9 if name == "gpt2" else 1e-12  # its keys are only all but the same
        torch.testing.assert_close(into, found.effects[site].flatten(1), rtol=1e-9, atol=atol)
    assert float(total.abs().max()) > 0.1
    torch.testing.assert_close(sum(found.edges(source, None).sum((1, 2, 3)) for source in keys), total)
    torch.testing.assert_close(found.effects[found.site("1.resid_post")].sum((1, 2)), total)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_edges_are_the_slopes_of_clamped_forward_passes(name: str) -> None:
    model, (ids, other), step = small(name), pairs(), 1e-5
    saes = random_saes(range(2), FAMILIES[name])
    generator = torch.Generator().manual_seed(0)
    with Wide():
        found, slow = solved(model, saes, ids, other), oracle(model, saes)
        keys = [site.key for site in found.network.sites]
        for at, source in enumerate(keys):
            x, moves = slow.values(ids)[source][0], slow.moves(ids, other, source)
            units = {moves.shape[2] - 1, int(torch.randint(moves.shape[2], (), generator=generator))}
            for target in (*keys[at + 1 :], None):
                numbers = slow.numbers(ids, source, target, {*keys} - {source, target})
                edges = found.edges(source, target)
                for unit in units:
                    for position in (1, 3):
                        way = torch.zeros_like(x)
                        way[:, position] = step * moves[:, position, unit]
                        with torch.no_grad():
                            slope = (numbers(x + way) - numbers(x - way)) / (2 * step)
                        torch.testing.assert_close(edges[:, :, position, unit], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2"])
def test_indirect_paths_are_what_is_left_of_the_total(name: str) -> None:
    model, (ids, other) = small(name), pairs()
    saes = random_saes(range(2), THREE)
    of = lambda *sites: [sae for sae in saes if sae.site in ("resid_post", *sites)]  # noqa: E731
    edge = lambda chosen: solved(model, chosen, ids, other).edges("0.resid_post", "1.resid_post")  # noqa: E731
    with Wide():
        direct, total = edge(saes), edge(of())
        through_attention, through_mlp = edge(of("mlp_out")) - direct, edge(of("attn_out")) - direct
        slow = oracle(model, saes)
        both = _through_both(slow, ids, other)
    assert float(through_attention.abs().max()) > 1e-2
    assert float(through_mlp.abs().max()) > 1e-2
    rest = total - direct - through_attention - through_mlp
    assert (float(both.abs().max()) > 1e-2) == (name == "gpt2")
    torch.testing.assert_close(rest, both, rtol=1e-9, atol=1e-12)


def _through_both(slow: Any, ids: Tensor, other: Tensor) -> Tensor:
    """Edges along stream -> attention -> MLP -> stream alone: the MLP moves as the attention's Jacobian moves it."""
    clean, gradient = slow.values(ids), slow.gradients(ids)
    up, attention, mlp, down = "0.resid_post", "1.attn_out", "1.mlp_out", "1.resid_post"
    split = next(part for part in slow.parts if part.key == down).split

    def arriving(source: str, x: Tensor, target: str, held: set[str]) -> Tensor:
        edit = lambda part, _: x if part.key == source else clean[part.key][0] if part.key in held else None  # noqa: E731
        return slow.arriving(ids, edit)[0][target][0]

    x = clean[up][0].clone().requires_grad_()
    attended = arriving(up, x, attention, set())
    written = arriving(attention, attended, mlp, {up})  # the stream below stays: only the attention moves the MLP
    numbers = split.numbers(*[arriving(mlp, written, down, {up, attention})] * 2, gradient[down]).flatten(1).sum(0)
    eye = torch.eye(len(numbers), dtype=x.dtype)
    back = torch.autograd.grad(numbers, x, eye, is_grads_batched=True, allow_unused=True)[0]
    back = torch.zeros(len(numbers), *x.shape, dtype=x.dtype) if back is None else back
    return torch.einsum("tbsd,bsud->btsu", back, slow.moves(ids, other, up))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_positions_that_cannot_meet_are_not_in_the_output(name: str) -> None:
    model, (ids, other) = small(name), pairs()
    found = solved(model, random_saes(range(2), FAMILIES[name]), ids, other)
    for (target, source), table in found.tables.items():
        (_, down, up), weight = table.entries()
        assert bool((weight != 0).all())
        there = up // source.units.count
        here = torch.full_like(there, 3) if target is None else down // target.units.count
        attends = target is not None and target.name.startswith("attn")
        assert bool((there <= here if attends else there == here).all())
        assert attends == bool((there < here).any()) or not len(there)


def test_the_metric_is_the_pairs_own() -> None:
    logits = torch.arange(20.0).view(2, 10).square()
    assert metric(logits).tolist() == [float(logits[n, PATCH[n]] - logits[n, CLEAN[n]]) for n in range(2)]
