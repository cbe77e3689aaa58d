"""Which sites are meant, and what is refused."""

from typing import Any

import pytest
import torch

from circuit_cases import random_saes, random_transcoders, small
from families import loaded
from graphs import cross_layer
from whence.engine.circuits.choosing import describe, network_of
from whence.errors import UnsupportedModelError


def keys(name: str, dictionaries: Any) -> list[str]:
    return [site.key for site in network_of(small(name), dictionaries).sites]


def test_sites_are_in_the_order_of_the_forward_pass() -> None:
    saes = random_saes(range(2), {"resid_post": 32, "mlp_out": 32, "attn_out": 32})
    blocks = [f"{layer}.{site}" for layer in range(2) for site in ("attn_out", "mlp_out", "resid_post")]
    for name in ("gpt2", "gpt_neox"):
        assert keys(name, saes) == ["embed", *blocks]
        assert keys(name, saes[::-1]) == ["embed", *blocks]


def test_the_models_own_units_are_named() -> None:
    network = network_of(small("gpt2"), ["attn.head", "mlp.neuron"])
    assert [site.key for site in network.sites] == ["embed", "0.attn", "0.mlp", "1.attn", "1.mlp"]
    assert [site.units.count for site in network.sites] == [1, 4, 128, 4, 128]
    assert keys("gpt2", "mlp") == ["embed", "0.mlp", "1.mlp"]
    assert keys("gpt2", random_saes([0], {"embed": 32})) == ["0.embed"]
    assert keys("gpt2", random_saes([0], {"resid_pre": 32})) == ["0.resid_pre"]
    assert keys("gpt2", random_transcoders([1], 32)) == ["embed", "1.mlp"]


def test_a_description_names_every_dictionary() -> None:
    described = describe([*random_saes(range(2), {"resid_post": 32}), "attn"])
    assert described[0] == "attn"
    assert len(described) == 2


@pytest.mark.parametrize(
    ("dictionaries", "error", "message"),
    [
        ("heads", ValueError, "names 'heads'; units of the model's own are attn.head, mlp.neuron, attn, mlp, embed"),
        (7, TypeError, "dictionaries= is int; it takes dictionaries, sets of them"),
        (["attn", "attn.head"], ValueError, "0.attn.head and 0.attn are units of one place"),
        (
            [*random_saes([0], {"resid_post": 32}), *random_saes([1], {"resid_pre": 32})],
            ValueError,
            "units of one place",
        ),
        (random_saes([1], {"mlp_out": 32}) * 2, ValueError, "layer"),
        (random_saes([7], {"mlp_out": 32}), ValueError, "layer"),
        (random_saes([0], {"resid_post": 16}), ValueError, "16"),
    ],
)
def test_what_cannot_be_is_refused(dictionaries: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        network_of(small("gpt2"), dictionaries)


def test_the_middle_of_parallel_blocks_is_refused() -> None:
    saes = random_saes([0], {"resid_mid": 32})
    assert keys("gpt2", saes) == ["embed", "0.resid_mid"]
    with pytest.raises(ValueError, match="its sublayers read in parallel; use resid_pre or resid_post"):
        network_of(small("gpt_neox"), saes)


def test_features_that_write_at_several_layers_are_refused() -> None:
    model = loaded("llama")
    with pytest.raises(ValueError, match="writes at several layers"):
        network_of(model, [cross_layer(model)])


def test_units_that_a_model_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has no attn sublayer, so there are no units 'attn\.head'"):
        network_of(loaded("mamba"), "attn.head")
    with pytest.raises(UnsupportedModelError, match="mixture of experts, so it has no one set of neurons"):
        network_of(loaded("mixtral"), "mlp.neuron")
    with pytest.raises(ValueError, match=r"layer 0 of .* has no attn"):
        network_of(loaded("jamba"), random_saes([0], {"attn_out": 32}, dtype=torch.float32))
