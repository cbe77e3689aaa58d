"""A model that differs from its entry is caught, and the error says what to do."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from families import VOCAB, fresh, loaded, model_type, tiny
from whence.errors import UnsupportedModelError
from whence.model import attention, freeze, selfcheck
from whence.model.architectures import ARCHITECTURES, Architecture
from whence.model.layout import bind
from whence.model.model import Model
from whence.model.selfcheck import lines, refuse_unless_passed, self_check


def failures(name: str, entry: Architecture | None = None) -> set[str]:
    """The names of the failed checks; that they are refused in words is checked on the way."""
    layout = bind(tiny(name), entry or ARCHITECTURES[model_type(name)])
    checks = self_check(layout, VOCAB)
    failed = [check for check in checks if not check.passed]
    if failed:
        with pytest.raises(UnsupportedModelError) as caught:
            refuse_unless_passed(layout, checks)
        message = str(caught.value)
        assert repr(failed[0].name) in message
        assert f"{failed[0].error:.1e}" in message
        assert type(layout.hf).__name__ in message
        assert "docs/adding-a-model.md" in message
    return {check.name for check in failed}


def without(name: str, **changes: Any) -> Architecture:
    """A family's entry with something changed in each of its sublayers."""
    entry = ARCHITECTURES[name]
    return replace(entry, sublayers=tuple(replace(sublayer, **changes) for sublayer in entry.sublayers))


def test_a_right_entry_has_no_failures() -> None:
    assert failures("llama") == set()


@pytest.mark.parametrize("name", ["granite", "falcon_h1"])
def test_a_forgotten_multiplier_breaks_the_stream(name: str) -> None:
    assert "stream" in failures(name, without(name, multiplier=None))


def test_a_multiplier_wrong_by_a_thousandth_breaks_the_stream() -> None:
    assert "stream" in failures("granite", without("granite", multiplier=lambda c: c.residual_multiplier * 1.001))


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2"])
def test_a_forgotten_post_norm_breaks_the_stream(name: str) -> None:
    assert "stream" in failures(name, without(name, post_norm=None))


def test_a_forgotten_writer_breaks_the_stream() -> None:
    entry = ARCHITECTURES["llama"]
    assert "stream" in failures("llama", replace(entry, sublayers=entry.sublayers[:1]))


@pytest.mark.parametrize("wrong", ["model.layers.2.post_attention_layernorm", "model.layers.0.input_layernorm"])
def test_a_wrong_final_norm_is_caught(wrong: str) -> None:
    assert "stream" in failures("llama", replace(ARCHITECTURES["llama"], final_norm=wrong))


def test_a_forgotten_position_embedding_changes_no_sum_but_a_wrong_one_does() -> None:
    assert "stream" not in failures("gpt2", replace(ARCHITECTURES["gpt2"], position=None))
    with pytest.raises(UnsupportedModelError, match=r"position embedding at 'transformer\.wte2'"):
        bind(tiny("gpt2"), replace(ARCHITECTURES["gpt2"], position="transformer.wte2"))


@pytest.mark.parametrize(
    ("name", "field"), [("cohere", "logit_scale"), ("granite", "logit_scale"), ("gemma2", "softcap")]
)
def test_a_forgotten_scale_or_cap_breaks_the_logit(name: str, field: str) -> None:
    assert failures(name, replace(ARCHITECTURES[name], **{field: None})) == {"logit"}


def test_attention_without_its_mask_puts_weight_on_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionMaskInterface

    monkeypatch.delitem(AttentionMaskInterface._global_mapping, attention.NAME, raising=False)
    monkeypatch.setattr(AttentionMaskInterface, "register", lambda *_: None)
    assert "future" in failures("llama")


def test_patterns_that_stay_live_are_not_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention._through

    def live(module: Any, query: Tensor, key: Tensor, value: Tensor, own: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        tape = attention._tape.get()
        return own() if tape is not None and tape.mode == "hold" else right(module, query, key, value, own, *rest)

    monkeypatch.setattr(attention, "_through", live)
    assert failures("llama") == {"affine"}


def test_norms_that_stay_live_are_not_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "hold_norm", lambda norm, hold: lambda args, kwargs, output: None)
    assert failures("llama") == {"affine"}


def test_mlps_that_stay_live_are_not_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "_hold_input", lambda hold: lambda args, kwargs: None)
    assert failures("llama") == {"affine"}


def test_values_that_are_not_what_the_output_map_reads_break_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selfcheck.reach
    monkeypatch.setattr(selfcheck, "reach", lambda one: right(one).flip(2))
    assert failures("llama") == {"reach"}


def test_a_model_that_computes_nan_is_refused() -> None:
    hf = fresh("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="relative error is nan"):
        Model(hf)


def test_the_block_where_the_stream_first_goes_wrong_is_named() -> None:
    hf = fresh("llama")
    hf.model.layers[1].register_forward_hook(lambda _, __, output: 1.5 * output)
    with pytest.raises(UnsupportedModelError, match=r"'stream' at model\.layers\.1: the writers add up"):
        Model(hf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2", "mamba", "mixtral"])
def test_half_precision_passes_within_its_own_bound(name: str, dtype: torch.dtype) -> None:
    checks = loaded(name, dtype).checks
    assert {check.bound for check in checks if check.name != "future"} == {selfcheck.BOUND[dtype]}


def test_lines_show_every_check_with_its_value_and_bound() -> None:
    text = list(lines(loaded("llama").checks))
    assert len(text) == 7
    assert all(line.startswith("ok") for line in text)
    assert "of 1e-04" in text[0]


def test_an_attention_kernel_that_disagrees_with_eager_attention_is_refused() -> None:
    hf = fresh("llama")

    def doubled(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        return eager_attention_forward(module, 2 * query, key, value, mask, **kwargs)

    AttentionInterface.register("doubled", doubled)
    AttentionMaskInterface.register("doubled", eager_mask)
    hf.set_attn_implementation("doubled")
    with pytest.raises(UnsupportedModelError, match=r"'kernel'.*attn_implementation='eager'"):
        Model(hf)
