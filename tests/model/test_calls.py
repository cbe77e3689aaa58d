"""What modules were called with, and calling them again."""

import pytest
import torch

from families import EVERY, loaded
from whence.model.calls import record_calls
from whence.model.hooks import hooked, main_output
from whence.model.sublayers import sublayers_of

PROMPTS = [[5, 9, 14, 23, 40], [7, 31, 12]]


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_module_called_again_with_what_it_was_given_says_the_same(name: str) -> None:
    model = loaded(name)
    batch = model.batch(PROMPTS)
    modules = {one.entrance for one in sublayers_of(model.layout, 64)}
    seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(module: torch.nn.Module) -> tuple[torch.nn.Module, object]:
        def after(args: tuple, kwargs: dict, output: object) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            seen[module] = hidden.clone(), main_output(output).clone()

        return module, after

    with hooked([keep(module) for module in modules]):
        calls = record_calls(model.layout, batch, modules)
    assert set(seen) == modules
    for module, (hidden, output) in seen.items():
        torch.testing.assert_close(calls.again(module, hidden), output, rtol=1e-5, atol=1e-5)
    for row, ids in enumerate(PROMPTS):
        plain = model.hf(torch.tensor([ids]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(calls.logits[row], plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bloom"])
def test_the_stream_before_the_first_block_is_kept(name: str) -> None:
    model = loaded(name)
    batch = model.batch(PROMPTS)
    calls = record_calls(model.layout, batch, [])
    with torch.no_grad():
        for row, ids in enumerate(PROMPTS):
            plain = model.hf(torch.tensor([ids]), use_cache=False, output_hidden_states=True).hidden_states[0][0]
            torch.testing.assert_close(calls.embedded[row, : len(ids)], plain)
    assert (calls.position is not None) == (name in ("gpt2", "opt"))
    if calls.position is not None:
        assert calls.position.shape[1:] == calls.embedded.shape[1:]
    assert calls.given == {}


def test_hidden_states_are_not_kept() -> None:
    model = loaded("llama")
    modules = [one.entrance for one in sublayers_of(model.layout, 64)]
    calls = record_calls(model.layout, model.batch(PROMPTS), modules)
    for args, kwargs in calls.given.values():
        first = args[0] if args else kwargs["hidden_states"]
        assert first.numel() == 0


def test_only_modules_given_nothing_by_token_are_alone() -> None:
    model = loaded("llama")
    sublayers = sublayers_of(model.layout, 64)
    calls = record_calls(model.layout, model.batch(PROMPTS), [one.entrance for one in sublayers])
    assert {one.kind: calls.alone(one.entrance) for one in sublayers} == {"attn": False, "mlp": True}
    residual = sublayers_of(loaded("bloom").layout, 64)  # its MLP is handed the residual to add to
    calls = record_calls(loaded("bloom").layout, loaded("bloom").batch(PROMPTS), [one.entrance for one in residual])
    assert not any(calls.alone(one.entrance) for one in residual)
