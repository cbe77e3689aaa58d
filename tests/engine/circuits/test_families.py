"""Every family: run sublayer by sublayer it is the same model, and a unit's out-edges sum to its effect."""

import pytest
import torch

from circuit_cases import random_saes, solved
from families import EVERY, FAMILIES, loaded
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.state import look
from whence.model.sublayers import sublayers_of

CLEAN = [[5, 9, 14, 23, 40], [7, 31, 12]]
PATCH = [[5, 50, 14, 23, 40], [7, 18, 12]]


@pytest.mark.parametrize("name", FAMILIES)
def test_out_edges_sum_to_the_effect_in_every_family(name: str) -> None:
    model = loaded(name)
    with_mlp = {one.layer for one in sublayers_of(model.layout, 64) if one.kind == "mlp"}
    saes = [
        *random_saes(range(model.n_layers), {"resid_post": 32}, 0, torch.float32),
        *random_saes(sorted(with_mlp), {"mlp_out": 32}, 1, torch.float32),
    ]
    found = solved(model, saes, CLEAN, PATCH)
    assert all(float(effects.abs().max()) > 0 for effects in found.effects.values())
    assert found.out_sum_error() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_out_edges_sum_where_few_sites_cut_the_model(name: str) -> None:
    model = loaded(name)
    found = solved(model, random_saes([1], {"resid_post": 32}, 0, torch.float32), CLEAN, PATCH)
    assert found.out_sum_error() < 1e-5


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("mamba")])
def test_out_edges_of_heads_sum_where_attention_is_met_in_the_middle(name: str) -> None:
    model = loaded(name)
    saes = random_saes(range(model.n_layers), {"resid_post": 32}, 0, torch.float32)
    found = solved(model, [*saes, "attn.head", "mlp"], CLEAN, PATCH)
    assert found.out_sum_error() < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_sublayer_by_sublayer_is_the_whole_model(name: str) -> None:
    model = loaded(name)
    network = network_of(model, "embed")
    with network.running():
        calls = network.calls(model.batch(CLEAN))
        final = look(network, calls).final
        logits = network.logits(calls, final)
        network.check(calls, logits)
    with torch.no_grad():
        for row, ids in enumerate(CLEAN):
            plain = model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[row], plain, rtol=1e-4, atol=1e-4)
