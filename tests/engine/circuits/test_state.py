"""What arrives at sites when all of them are held, and the edges there."""

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_cases import Solved, Wide, asked_of, every_unit, oracle, pairs, random_saes, random_transcoders, small
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.edges import Linear, direct_edges
from whence.engine.circuits.effects import gradients
from whence.engine.circuits.state import look, repeated
from whence.model.batch import Batch

CASES: dict[str, tuple[str, list[Any]]] = {
    "gpt2": ("gpt2", random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})),
    "parallel": ("gpt_neox", random_saes(range(2), {"attn_out": 32, "mlp_out": 32, "resid_post": 32})),
    "skip transcoders": ("llama", [*random_transcoders(range(2), 32, skip=True), "attn.head"]),
    "few": ("gemma2", random_saes([1], {"attn_z": 32, "resid_post": 32})),
}


@pytest.mark.parametrize("name", list(CASES))
def test_edges_of_a_held_state_are_the_derivatives_there(name: str) -> None:
    family, dictionaries = CASES[name]
    model, (ids, other) = small(family), pairs()
    with Wide():
        slow = oracle(model, dictionaries)
        clean, patch = slow.values(ids), slow.values(other)
        middle = {key: tuple((a + b) / 2 for a, b in zip(clean[key], patch[key], strict=True)) for key in clean}
        network = network_of(model, dictionaries)
        with network.running():
            asked = asked_of(model, dictionaries, ids, other, network)
            held = {site: middle[site.key][0] for site in network.sites}
            state = look(network, asked.clean.calls, held)
            gradient, final = gradients(asked)
            live = final_gradient(slow, state.final, model)
            tables = direct_edges(Linear(network, state, gradient, live, asked.delta, every_unit(network, final)))
        found = Solved(network, asked, gradient, live, {}, tables)
        arrived, _ = slow.arriving(ids, lambda part, _: middle[part.key][0])
        keys = [site.key for site in network.sites]
        for site in network.sites:
            said = site.units.split(*(one.detach() for one in arrived[site.key]))
            torch.testing.assert_close(state.said[site].features, said.features, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(state.said[site].vectors, said.vectors, rtol=1e-9, atol=1e-12)
        for at, source in enumerate(keys):
            for target in (*keys[at + 1 :], None):
                expected = slow.edges(ids, other, source, target, middle)
                torch.testing.assert_close(found.edges(source, target), expected, rtol=1e-9, atol=1e-12)


def final_gradient(slow: Any, stream: Tensor, model: Any) -> Tensor:
    """dm/dx of the final stream, by the model's own last norm and head."""
    x = stream.clone().requires_grad_()
    layout = model.layout
    logits = layout.head(layout.final_norm(x))[:, -1]
    with torch.enable_grad():
        capped = logits if layout.softcap is None else layout.softcap * (logits / layout.softcap).tanh()
    return torch.autograd.grad(slow.metric(capped).sum(), x)[0]


def test_a_state_keeps_every_point_of_the_stream() -> None:
    model, (ids, _) = small("gpt2"), pairs()
    network = network_of(model, "embed")
    with network.running():
        state = look(network, network.calls(model.batch(ids)))
    hidden = model.hf(ids, output_hidden_states=True, use_cache=False).hidden_states
    assert sorted(state.streams) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(state.streams[0], hidden[0])
    torch.testing.assert_close(state.streams[2], hidden[1])
    assert state.final is state.streams[4]


def test_a_repeated_batch_holds_all_examples_again_and_again() -> None:
    batch = Batch(torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]))
    again = repeated(batch, 3)
    assert again.ids.tolist() == [[1, 2], [3, 0]] * 3
    assert again.lengths.tolist() == [2, 1] * 3
