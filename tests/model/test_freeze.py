"""With patterns, norm scales and MLPs held, the forward pass is affine, and the model comes back as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, fresh, loaded, prompts
from whence.errors import UnsupportedModelError
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.model import Model

VARIANTS = (
    "gpt_neox sequential",
    "stablelm parallel",
    "mistral window",
    "gemma2 window",
    "gpt_oss window",
    "llama biased",
)


def stream_to_logits(layout: Layout, ids: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The stream before the first block, and raw logits as a function of it."""
    seen: dict[str, Tensor] = {}

    def run(stream: Tensor | None) -> Tensor:
        def enter(args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            seen["stream"] = first_tensor(args, kwargs).detach()
            return None if stream is None else replace_first(args, kwargs, stream)

        with hooked([(layout.head, lambda _, __, out: seen.update(raw=out))], [(layout.blocks[0], enter)]):
            layout.hf(input_ids=ids, use_cache=False)
        return seen["raw"]

    with torch.no_grad():
        run(None)
    return seen["stream"], run


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, covector: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and the covector pulled back through the Jacobian at x."""
    x = x.clone().requires_grad_()
    y = function(x)
    (pulled,) = torch.autograd.grad((y * covector).sum(), x)
    return y.detach(), pulled


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", [*GRAPH_FAMILIES, *VARIANTS])
def test_the_jacobian_predicts_a_step_of_any_size(name: str) -> None:
    layout = loaded(name, torch.float64).layout
    x, function = stream_to_logits(layout, prompts())
    noise = torch.Generator().manual_seed(3)
    h = 3 * x.std() * torch.randn(x.shape, generator=noise, dtype=x.dtype)
    with frozen(layout):
        covector = torch.randn(function(x).shape, generator=noise, dtype=x.dtype)
        at_x, pulled = gradient(function, x, covector)
        beyond, pulled_beyond = gradient(function, x + h, covector)
    predicted, measured = (pulled * h).sum(), ((beyond - at_x) * covector).sum()
    assert abs(predicted - measured) < 1e-5 * (pulled.norm() * h.norm())
    assert gap(pulled_beyond, pulled) < 1e-5


def test_the_first_pass_already_has_the_frozen_gradient() -> None:
    layout = loaded("llama", torch.float64).layout
    x, function = stream_to_logits(layout, prompts())
    covector = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    with frozen(layout):
        _, recording = gradient(function, x, covector)
        _, replaying = gradient(function, x, covector)
    assert gap(recording, replaying) < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mixtral"])
def test_the_plain_model_misses_the_same_step(name: str) -> None:
    layout = loaded(name, torch.float64).layout
    x, function = stream_to_logits(layout, prompts())
    noise = torch.Generator().manual_seed(3)
    h = 3 * x.std() * torch.randn(x.shape, generator=noise, dtype=x.dtype)
    covector = torch.randn(2, 9, 64, generator=noise, dtype=x.dtype)
    at_x, pulled = gradient(function, x, covector)
    beyond, pulled_beyond = gradient(function, x + h, covector)
    assert abs((pulled * h).sum() - ((beyond - at_x) * covector).sum()) > 1e-3 * (pulled.norm() * h.norm())
    assert gap(pulled_beyond, pulled) > 1e-2


@pytest.mark.parametrize("name", GRAPH_FAMILIES)
def test_the_first_pass_returns_the_eager_models_own_logits_bit_for_bit(name: str) -> None:
    hf = fresh(name)
    layout = Model(hf).layout
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        plain = hf(input_ids=prompts(), use_cache=False).logits
        with frozen(layout):
            held = hf(input_ids=prompts(), use_cache=False).logits
            again = hf(input_ids=prompts(), use_cache=False).logits
    assert torch.equal(held, plain)
    assert gap(again, plain) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "gptj"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_also_after_an_error(name: str, fails: bool) -> None:
    hf = fresh(name)
    layout = Model(hf).layout
    with torch.no_grad():
        before = hf(input_ids=prompts(), use_cache=False).logits
        implementation = hf.config._attn_implementation
        try:
            with frozen(layout):
                hf(input_ids=prompts(), use_cache=False)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert torch.equal(hf(input_ids=prompts(), use_cache=False).logits, before)
    assert hf.config._attn_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())
    assert not any("_attn" in vars(module) for module in hf.modules())


@pytest.mark.parametrize("name", ["bloom", "mamba", "qwen3_next"])
def test_a_family_without_graphs_is_refused_before_anything_is_touched(name: str) -> None:
    layout = loaded(name).layout
    with pytest.raises(UnsupportedModelError, match="cannot be held constant"), frozen(layout):
        pytest.fail("entered")
