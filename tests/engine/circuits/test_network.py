"""Running stretches of a model with sites held, edited or left."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import Wide, oracle, pairs, random_saes, small
from families import fresh
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import look
from whence.errors import UnsupportedModelError
from whence.model.model import Model

SITES = {
    "gpt2": {"attn_out": 32, "mlp_out": 32, "resid_post": 32},
    "gpt_neox": {"attn_out": 32, "mlp_out": 32, "resid_post": 32},
    "gemma2": {"attn_z": 32, "mlp_out_normed": 32, "resid_post": 32},
}


def chosen(name: str) -> tuple[Model, Network, Any]:
    model, saes = small(name), random_saes(range(2), SITES[name])
    return model, network_of(model, saes), oracle(model, saes)


@pytest.mark.parametrize("name", list(SITES))
def test_held_sites_are_clamped_modules(name: str) -> None:
    (model, network, slow), (ids, other) = chosen(name), pairs()
    with Wide(), network.running():
        calls = network.calls(model.batch(ids))
        patch = slow.values(other)
        for keys in ({"0.mlp_out"}, {"0.resid_post"}, {"embed"}, {site.key for site in network.sites[2:5]}):
            held = {site: patch[site.key][0] for site in network.sites if site.key in keys}
            logits = network.logits(calls, network.run(calls, calls.embedded, held=held))
            edit = lambda part, _, keys=keys: patch[part.key][0] if part.key in keys else None  # noqa: E731
            torch.testing.assert_close(slow.metric(logits), slow.run(ids, edit), rtol=1e-9, atol=1e-12)


def test_an_edit_is_held_once_it_is_known() -> None:
    (model, network, _), (ids, other) = chosen("gpt2"), pairs()
    with network.running():
        calls = network.calls(model.batch(ids))
        patch = look(network, network.calls(model.batch(other)))
        seen: list[str] = []

        def edit(site: CircuitSite, own: Tensor, read: Tensor) -> Tensor | None:
            seen.append(site.key)
            return patch.own[site] if site.key == "1.mlp_out" else None

        edited = network.run(calls, calls.embedded, edit=edit)
        site = next(site for site in network.sites if site.key == "1.mlp_out")
        held = network.run(calls, calls.embedded, held={site: patch.own[site]})
    assert torch.equal(edited, held)
    assert seen == [site.key for site in network.sites]


def test_what_stands_before_a_held_site_is_not_run() -> None:
    (model, network, _), (ids, _) = chosen("gpt2"), pairs()
    with network.running():
        calls = network.calls(model.batch(ids))
        state = look(network, calls)
        held = {site: state.own[site] for site in network.sites if site.sublayer is not None}
        ran: list[str] = []
        for layer, block in enumerate(model.hf.transformer.h):
            for name in ("attn", "mlp"):
                module: Any = getattr(block, name)
                module.register_forward_hook(lambda *_, key=f"{layer}.{name}": ran.append(key))
        final = network.run(calls, calls.embedded, held=held)
    assert ran == []
    torch.testing.assert_close(final, state.final)


@pytest.mark.parametrize("name", list(SITES))
def test_two_stretches_are_the_whole(name: str) -> None:
    (model, network, _), (ids, _) = chosen(name), pairs()
    with network.running():
        calls = network.calls(model.batch(ids))
        whole = network.run(calls, calls.embedded)
        for middle in range(network.end + 1):
            half = network.run(calls, calls.embedded, stop=middle)
            torch.testing.assert_close(network.run(calls, half, middle), whole)


def test_a_forward_pass_that_is_no_sum_of_its_sublayers_is_refused() -> None:
    model = Model(fresh("llama"))
    block: Any = model.layout.blocks[2]
    forward = block.forward
    block.forward = lambda hidden, *args, **kwargs: 1.5 * forward(hidden, *args, **kwargs)
    network = network_of(model, "embed")  # nothing after the last block tells
    with network.running():
        calls = network.calls(model.batch([[5, 9, 14]]))
        logits = network.logits(calls, network.run(calls, calls.embedded + calls.embedded.square()))
        with pytest.raises(UnsupportedModelError, match="run sublayer by sublayer its logits are off by"):
            network.check(calls, logits)


def test_nothing_is_left_on_the_model() -> None:
    (model, network, _), (ids, _) = chosen("gpt2"), pairs()
    before = model.hf(ids, use_cache=False).logits
    with pytest.raises(RuntimeError, match="stop"), network.running():
        raise RuntimeError("stop")
    assert torch.equal(model.hf(ids, use_cache=False).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
    assert model.hf.config._attn_implementation == "eager"
