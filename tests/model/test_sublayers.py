"""Sublayers as functions of the stream: what they add is what the model's own stream gains."""

from typing import Any

import pytest
import torch

from families import EVERY, LAYERS, fresh, loaded
from whence.errors import UnsupportedModelError
from whence.model.calls import record_calls
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.selfcheck import few_tokens
from whence.model.sublayers import Sublayer, sublayers_of
from whence.model.trace import Wanted

VOCAB = 64


def found_in(model: Model) -> tuple[Sublayer, ...]:
    return sublayers_of(model.layout, VOCAB)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_what_sublayers_add_is_what_the_stream_gains(name: str) -> None:
    model = loaded(name)
    layout, batch = model.layout, few_tokens(model.layout, VOCAB)
    sublayers = found_in(model)
    calls = record_calls(layout, batch, [one.entrance for one in sublayers])
    layers = range(len(layout.blocks))
    trace = record(layout, batch, batch.rows(None), wanted=Wanted(streams=frozenset(layers)))
    stream, real = calls.embedded, batch.mask
    for layer in layers:
        for stage in sorted({one.stage for one in sublayers if one.layer == layer}):
            here = [one for one in sublayers if (one.layer, one.stage) == (layer, stage)]
            stream = stream + sum(one.tail(one.call(calls, one.given(stream)).out, "out") for one in here)
        expected = trace.streams[layer]
        torch.testing.assert_close(stream[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "granite", "falcon_h1", "opt", "jamba"])
@torch.no_grad()
def test_every_depth_on_the_way_out_leads_to_the_same_addition(name: str) -> None:
    model = loaded(name)
    batch = few_tokens(model.layout, VOCAB)
    sublayers = found_in(model)
    calls = record_calls(model.layout, batch, [one.entrance for one in sublayers])
    for one in sublayers:
        passed = one.call(calls, one.given(calls.embedded))
        out = one.tail(passed.out, "out")
        normed = passed.out if one.post_norm is None else one.post_norm(passed.out)
        torch.testing.assert_close(one.tail(normed, "normed"), out, rtol=1e-5, atol=1e-5)
        if one.write is None:
            with pytest.raises(UnsupportedModelError, match="mixture of experts, so it has no one last map"):
                one.spot("inside")
        else:
            torch.testing.assert_close(one.tail(passed.at("inside"), "inside"), out, rtol=1e-5, atol=1e-5)
            assert one.spot("inside").module is one.write
        assert one.spot("normed").module is (one.out if one.post_norm is None else one.post_norm)


def test_factors_are_measured() -> None:
    granite = found_in(loaded("granite"))
    assert {round(one.factor, 4) for one in granite} == {0.22}
    attention = {one.kind: one for one in found_in(loaded("falcon_h1"))}
    assert round(attention["attn"].factor * attention["attn"].written, 4) == 0.7
    assert all((one.entered, one.written, one.factor) == (1.0, 1.0, 1.0) for one in found_in(loaded("llama")))


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("gpt2", [["attn"], ["mlp"]]),
        ("gpt_neox", [["attn", "mlp"]]),
        ("gpt_neox sequential", [["attn"], ["mlp"]]),
        ("mamba", [["ssm"]]),
        ("falcon_h1", [["attn", "ssm"], ["mlp"]]),
        ("qwen2_moe", [["attn"], ["mlp"]]),
    ],
)
def test_sublayers_come_in_the_order_they_write(name: str, stages: list[list[str]]) -> None:
    found = found_in(loaded(name))
    for layer in range(LAYERS):
        here = [one for one in found if one.layer == layer]
        numbers = sorted({one.stage for one in here})
        assert [sorted(one.kind for one in here if one.stage == stage) for stage in numbers] == stages
    assert [one.layer for one in found] == sorted(one.layer for one in found)
    assert found[0].key == f"0.{found[0].kind}"


def edited(part: str, change: Any) -> Model:
    """A llama whose second block was edited after it was loaded."""
    model = Model(fresh("llama"))
    block: Any = model.layout.blocks[1]
    module = block if part == "block" else getattr(block, part)
    forward = module.forward
    module.forward = lambda hidden, *args, **kwargs: change(forward, hidden, *args, **kwargs)
    return model


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("mlp", lambda forward, x: forward(x) + x**2),
        ("mlp", lambda forward, x: forward(x).tanh()),
        ("block", lambda forward, x, *args, **kwargs: 1.5 * forward(x, *args, **kwargs)),
    ],
)
def test_a_sublayer_of_another_form_is_refused(part: str, change: Any) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        found_in(edited(part, change))
    message = str(caught.value)
    assert message.startswith("2.")
    assert "no multiple of what its family's entry leads to expect (off by" in message
    assert "docs/adding-a-model.md" in message


def test_a_sublayer_that_is_silent_on_the_first_look_is_not_taken_for_silent() -> None:
    model = fresh("gpt2")
    hf = model.hf if isinstance(model, Model) else model
    last = hf.transformer.h[1].mlp.c_proj
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
    silent = next(one for one in found_in(Model(hf)) if one.key == "1.mlp")
    assert (silent.written, silent.factor) == (1.0, 1.0)
