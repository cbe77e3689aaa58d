"""How vectors are split into units and put together again."""

import pytest
import torch

from circuit_cases import random_saes, random_transcoders
from circuit_parts import Features
from whence.components.activation import Activation
from whence.engine.circuits.block_units import BlockUnits
from whence.engine.circuits.feature_units import FeatureUnits
from whence.engine.circuits.units import Places, Units, places_of

TOP, JUMP = Activation("topk", k=3), Activation("jumprelu", threshold=torch.tensor(0.4))
ACTIVATIONS = {"relu": Activation("relu"), "topk": TOP, "jumprelu": JUMP}


def features(kind: str) -> tuple[FeatureUnits, Features]:
    (sae,) = random_saes([0], {"resid_post": 6}, activation=lambda _: ACTIVATIONS[kind])
    return FeatureUnits(sae.encoder_of(0), sae.W_dec, sae.b_dec), Features(sae)  # type: ignore[arg-type]


def skipping() -> tuple[FeatureUnits, Features]:
    (one,) = random_transcoders([0], 6, skip=True)
    units = FeatureUnits(one.encoder_of(0), one.W_dec, one.b_dec, one.skip_of(0), False)  # type: ignore[arg-type]
    return units, Features(one)


def vectors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    own, read = (torch.randn(2, 3, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    return own, read


@pytest.mark.parametrize("units", [features("topk")[0], skipping()[0], BlockUnits(3, 6, "head"), BlockUnits(1, 6)])
def test_what_units_say_makes_the_vector_again(units: Units) -> None:
    own, read = vectors()
    read = own if not isinstance(units, FeatureUnits) or units.reads_itself else read
    torch.testing.assert_close(units.join(units.split(own, read)), own)


@pytest.mark.parametrize("kind", list(ACTIVATIONS))
def test_the_gate_is_open_where_a_feature_was_kept(kind: str) -> None:
    units, slow = features(kind)
    own, _ = vectors()
    said = units.split(own, own)
    x = own.clone().requires_grad_()
    summed, _ = slow.said(x, x)
    (slope,) = torch.autograd.grad(summed.sum(), x)
    gate = units.gate(said)
    assert torch.equal(gate, (said.features != 0).double())
    torch.testing.assert_close(gate @ slow.of.W_enc, slope)
    if kind == "topk":
        assert int(gate.sum(-1).max()) <= 3
    assert 0 < float(gate.mean()) < 1


@pytest.mark.parametrize("of", [lambda: features("relu"), lambda: features("topk"), skipping])
def test_rows_are_the_formulas_of_the_dense_split(of: object) -> None:
    units, slow = of()  # type: ignore[operator]
    (own, read), (other, otherwise) = vectors(), vectors(1)
    if units.reads_itself:
        read, otherwise = own, other
    delta = units.split(other, otherwise).minus(units.split(own, read))
    gradient = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    every = torch.arange(units.count)
    at = places_of(torch.ones(2, 3, units.count, dtype=torch.bool), every)
    moves = slow.moves((own, read), (other, otherwise))
    torch.testing.assert_close(units.tangents(delta, at), moves.flatten(0, 2))
    torch.testing.assert_close(units.effects(gradient, delta), torch.einsum("bsd,bsud->bsu", gradient, moves))
    cotangents = units.cotangents(gradient, units.gate(units.split(own, read)), at)
    x, r = own.clone().requires_grad_(), read.clone().requires_grad_()
    numbers = slow.numbers(x, x if units.reads_itself else r, gradient)
    for line in range(len(at)):
        value = numbers[at.example[line], at.position[line], at.unit[line]]
        found = torch.autograd.grad(value, [x, r], retain_graph=True, allow_unused=True)
        for covector, slope in zip((cotangents.own, cotangents.read), found, strict=True):
            if covector is not None:
                here = torch.zeros(6).double() if slope is None else slope[at.example[line], at.position[line]]
                torch.testing.assert_close(covector[line], here)


def test_a_choice_of_units_mixes_two_sayings() -> None:
    units, slow = skipping()
    (own, read), (other, otherwise) = vectors(), vectors(1)
    one, two = units.split(own, read), units.split(other, otherwise)
    kept = torch.rand(2, 3, units.count, generator=torch.Generator().manual_seed(3)) > 0.5
    moves = slow.moves((own, read), (other, otherwise))
    expected = own + (moves * ~kept[..., None]).sum(-2)
    torch.testing.assert_close(units.join(one.mixed(two, units.mask(kept))), expected)


def test_blocks_are_chosen_whole() -> None:
    units, (own, _) = BlockUnits(3, 6, "head"), vectors()
    kept = torch.tensor([True, False, True]).expand(2, 3, 3)
    nothing = units.split(torch.zeros_like(own), own)
    mixed = units.join(units.split(own, own).mixed(nothing, units.mask(kept)))
    assert torch.equal(mixed, own * torch.tensor([1, 1, 0, 0, 1, 1]))


def test_units_have_names() -> None:
    units, _ = skipping()
    assert [units.name(one) for one in (4, units.count - 2, units.count - 1)] == [
        ("feature", 4),
        ("skip", None),
        ("error", None),
    ]
    assert BlockUnits(3, 6, "head").name(1) == ("head", 1)
    assert BlockUnits(1, 6).name(0) == ("", None)


def test_places_are_by_example_position_and_unit() -> None:
    chosen = torch.zeros(2, 2, 3, dtype=torch.bool)
    chosen[1, 0, 2] = chosen[0, 1, 0] = chosen[1, 0, 1] = True
    at = places_of(chosen, torch.tensor([4, 7, 9]))
    assert [part.tolist() for part in (at.example, at.position, at.unit)] == [[0, 1, 1], [1, 0, 0], [4, 7, 9]]
    assert len(at.where(at.unit > 4)) == 2
    assert isinstance(at.where(at.unit > 4), Places)
