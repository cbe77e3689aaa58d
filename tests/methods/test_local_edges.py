"""Effects, gradients and indirect effects at single tokens, against forward passes of the whole model with clamps."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import CLEAN, PATCH, Wide, oracle, pairs, random_saes, random_transcoders, small
from circuit_oracle import Oracle
from whence.methods.local_edges import local_edges
from whence.methods.local_edges_object import LocalEdges
from whence.results.local_edges import EdgeEffects, EdgeGradients
from whence.targets.pairs import Pairs

THREE = {"attn_out": 32, "mlp_out": 32, "resid_post": 32}
SITES: dict[str, tuple[str, list[Any]]] = {
    "sequential": ("gpt2", random_saes(range(2), THREE)),
    "parallel": ("gpt_neox", random_saes(range(2), THREE)),
    "post-norm": ("gemma2", random_saes(range(2), {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32})),
    "skips and heads": ("llama", [*random_transcoders(range(2), 32, skip=True), "attn.head"]),
    "neurons": ("gpt2", ["mlp.neuron", *random_saes([1], {"resid_pre": 32})]),
}
INDIRECT = [
    ("0.resid_post", "1.resid_post", ["1.attn_out"]),
    ("0.resid_post", "1.resid_post", ["1.mlp_out"]),
    ("0.resid_post", "1.resid_post", ["1.attn_out", "1.mlp_out"]),
    ("embed", "1.attn_out", ["0.resid_post"]),
    ("0.attn_out", "metric", ["0.resid_post", "1.resid_post"]),
]


def pairs_of(ids: Tensor, other: Tensor) -> Pairs:
    rows = lambda tensor: tuple(map(tuple, tensor.tolist()))  # noqa: E731
    count = len(ids)
    return Pairs(rows(ids), rows(other), tuple(CLEAN[:count].tolist()), tuple(PATCH[:count].tolist()))


@cache
def asked(name: str) -> tuple[LocalEdges, Oracle, Tensor, Tensor]:
    (family, dictionaries), (ids, other) = SITES[name], pairs()
    model = small(family)
    return local_edges(model, dictionaries, pairs_of(ids, other)), oracle(model, dictionaries), ids, other


def near(edges: LocalEdges) -> list[tuple[str, str]]:
    """Pairs of sites with a direct edge."""
    sites = edges.sites
    every = [(source, target) for at, source in enumerate(sites) for target in sites[at + 1 :]]
    return [pair for pair in every if is_direct(edges, *pair)]


def is_direct(edges: LocalEdges, source: str, target: str) -> bool:
    try:
        edges.effect(source, target)
    except ValueError:
        return False
    return True


def by_target(numbers: Tensor, target: str) -> Tensor:
    """[example, target pos * unit, source pos, ...] as the slow answers have it."""
    return numbers[:, -1] if target == "metric" else numbers.flatten(1, 2)


def slopes(slow: Oracle, ids: Tensor, source: str, target: str, live: list[str]) -> Tensor:
    """[example, target, pos, d]: by every coordinate of the source's vector, all other sites clamped but those live."""
    held = {part.key for part in slow.parts} - {source, target, *live}
    numbers = slow.numbers(ids, source, None if target == "metric" else target, held)
    x = slow.values(ids)[source][0].requires_grad_()
    out = numbers(x).sum(0)  # examples never meet
    eye = torch.eye(len(out), dtype=x.dtype)
    back = torch.autograd.grad(out, x, eye, is_grads_batched=True, allow_unused=True)[0] if out.requires_grad else None
    return x.new_zeros(len(x), len(out), *x.shape[1:]) if back is None else back.transpose(0, 1)


def slow_edges(slow: Oracle, ids: Tensor, other: Tensor, source: str, target: str, live: list[str]) -> Tensor:
    """[example, target, pos, unit]."""
    back = slopes(slow, ids, source, target, live)
    return torch.einsum("btsd,bsud->btsu", back, slow.moves(ids, other, source))


@pytest.mark.parametrize("name", ["sequential", "parallel", "post-norm", "skips and heads"])
def test_effects_are_those_of_clamped_forward_passes(name: str) -> None:
    with Wide():
        edges, slow, ids, other = asked(name)
        largest = 0.0
        for source, target in near(edges):
            expected = slow_edges(slow, ids, other, source, target, [])
            found = by_target(edges.effect(source, target).dense(), target)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
            largest = max(largest, float(expected.abs().max()))
    assert largest > 0.1


@pytest.mark.parametrize("name", ["parallel", "post-norm", "neurons"])
def test_gradients_are_by_every_coordinate_of_the_source(name: str) -> None:
    with Wide():
        edges, slow, ids, _ = asked(name)
        for source, target in near(edges):
            slope = slopes(slow, ids, source, target, [])
            split = next(part for part in slow.parts if part.key == source).split
            features = slope @ split.of.W_dec.T if hasattr(split, "of") else slope[..., :0]
            found = by_target(edges.gradient(source, target).dense(), target)
            torch.testing.assert_close(found, torch.cat([features, slope], -1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sequential", "post-norm", "skips and heads"])
def test_the_effect_is_the_gradient_times_the_difference_and_not_the_gradient(name: str) -> None:
    with Wide():
        edges, *_ = asked(name)
        for source, target in near(edges):
            effect, gradient = edges.effect(source, target), edges.gradient(source, target)
            product = gradient.times_difference()
            assert type(product) is type(effect) is EdgeEffects
            assert product.axes == effect.axes
            torch.testing.assert_close(product.dense(), effect.dense(), rtol=1e-9, atol=1e-12)
            assert type(gradient) is EdgeGradients
            features = sum("feature" in label for label in gradient.axes["source_coordinate"])
            both = effect.dense()[..., :features], gradient.dense()[..., :features]
            assert not features or float((both[0] - both[1]).abs().max()) > 0.1 * float(both[1].abs().max()) > 0


@pytest.mark.parametrize("name", ["sequential", "parallel", "post-norm"])
@pytest.mark.parametrize(("source", "target", "through"), INDIRECT)
def test_indirect_effects_are_what_the_clamps_held_back(
    name: str, source: str, target: str, through: list[str]
) -> None:
    if name == "post-norm":
        source, target, *through = (key.replace("attn_out", "attn_z") for key in (source, target, *through))
    with Wide():
        edges, slow, ids, other = asked(name)
        found = edges.indirect(source, target, through=through)
        live, held = (slow_edges(slow, ids, other, source, target, some) for some in (through, []))
    assert found.through == tuple(through)
    assert float((live - held).abs().max()) > 1e-3
    torch.testing.assert_close(by_target(found.dense(), target), live - held, rtol=1e-9, atol=1e-12)


def test_one_site_may_be_named_alone() -> None:
    edges, *_ = asked("sequential")
    alone, listed = (
        edges.indirect("0.resid_post", "1.resid_post", through) for through in ("1.attn_out", ["1.attn_out"])
    )
    assert alone.through == ("1.attn_out",)
    assert torch.equal(alone.dense(), listed.dense())
    with pytest.raises(ValueError, match=r"through=embed does not lie there; between them are 1\.attn_out"):
        edges.indirect("0.resid_post", "1.resid_post", "embed")
