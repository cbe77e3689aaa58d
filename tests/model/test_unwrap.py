"""The transformers model inside another library's wrapper."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from families import fresh, tiny
from whence.model.model import Model
from whence.model.unwrap import unwrap
from wrappers import GeneralizedComponent, bridge, wrapper


def test_a_plain_model_is_itself() -> None:
    assert unwrap(tiny("llama")) == (tiny("llama"), None)


@pytest.mark.parametrize("attribute", ["_module", "_model"])  # since nnsight 0.4, and before
def test_an_nnsight_model_gives_what_it_wraps_and_its_tokenizer(attribute: str) -> None:
    wrapped = {attribute: tiny("llama"), "tokenizer": "its tokenizer"}
    outer = wrapper("LanguageModel", "nnsight.modeling.language", **wrapped)
    assert unwrap(outer) == (tiny("llama"), "its tokenizer")


def test_an_nnsight_model_that_has_not_loaded_its_weights_says_how_to() -> None:
    outer = wrapper("LanguageModel", "nnsight", _module=fresh("llama").to("meta"), tokenizer=None)
    with pytest.raises(ValueError, match="dispatch=True"):
        unwrap(outer)


def test_a_subclass_of_a_known_wrapper_is_known() -> None:
    base = type("LanguageModel", (), {"__module__": "nnsight.modeling.language"})
    outer = wrapper("Mine", "my_project", base, _model=tiny("llama"), tokenizer=None)
    assert unwrap(outer)[0] is tiny("llama")


def test_a_transformer_lens_bridge_gives_its_original_model() -> None:
    outer = wrapper(
        "TransformerBridge", "transformer_lens.model_bridge", original_model=tiny("gpt2"), tokenizer="its tokenizer"
    )
    assert unwrap(outer) == (tiny("gpt2"), "its tokenizer")


def test_components_that_a_bridge_put_into_the_model_are_looked_through_and_left_in_place() -> None:
    hf = fresh("llama")
    with torch.no_grad():
        expected = hf(torch.tensor([[3, 4, 5]])).logits
    model = Model(bridge(hf, "self_attn", "o_proj"))
    assert torch.equal(model.logits([3, 4, 5], None), expected)
    assert model.hf.lm_head.weight is hf.lm_head.weight
    assert all(isinstance(block.self_attn, GeneralizedComponent) for block in hf.model.layers)


def test_a_tokenizer_given_to_model_comes_before_the_wrappers() -> None:
    outer = wrapper("LanguageModel", "nnsight", _model=tiny("llama"), tokenizer="its tokenizer")
    assert Model(outer).tokenizer == "its tokenizer"
    assert Model(outer, "another").tokenizer == "another"


def test_a_peft_model_gives_the_base_model_with_its_adapters_in_place() -> None:
    from peft import LoraConfig, get_peft_model

    hf = fresh("llama")
    with warnings.catch_warnings():  # peft asks transformers for a property by its old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        wrapped = get_peft_model(hf, LoraConfig(r=2, target_modules=["o_proj"]))
    assert unwrap(wrapped) == (hf, None)
    assert type(hf.model.layers[0].self_attn.o_proj) is not nn.Linear


@pytest.mark.parametrize("other", [nn.Linear(2, 2), "openai-community/gpt2", None])
def test_anything_else_is_a_type_error_that_says_what_to_pass(other: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"{type(other).__name__} is no transformers model.*pass the transformers model"
    ):
        unwrap(other)


def test_a_class_that_only_shares_a_wrappers_name_is_not_one() -> None:
    with pytest.raises(TypeError, match="no transformers model"):
        unwrap(wrapper("LanguageModel", "somewhere.else", _model=tiny("llama"), tokenizer=None))
