"""A configuration field that changes the forward pass is understood or refused, never ignored."""

from typing import Any

import pytest
from transformers import LlamaForCausalLM

from families import EVERY, fresh, tiny
from whence.errors import UnsupportedModelError
from whence.model.config_fields import refuse_unknown_fields
from whence.model.model import Model


class ScaledLlama(LlamaForCausalLM):
    """A family member from the future, whose forward pass reads a field nobody knows yet."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.config.secret_multiplier
        return output


@pytest.mark.parametrize("name", EVERY)
def test_the_fields_of_every_listed_family_are_understood(name: str) -> None:
    refuse_unknown_fields(tiny(name))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("bloom", "apply_residual_connection_post_layernorm", True),
        ("opt", "do_layer_norm_before", False),
        ("gpt2", "add_cross_attention", True),
        ("gemma3_text", "use_bidirectional_attention", True),
    ],
)
def test_a_known_field_with_a_value_no_entry_covers_is_refused(name: str, field: str, value: Any) -> None:
    hf = fresh(name)
    setattr(hf.config, field, value)
    with pytest.raises(UnsupportedModelError, match=rf"{field}={value!r} \(default {not value}"):
        Model(hf)


def test_a_new_field_that_the_forward_pass_reads_is_refused_with_its_value_and_the_remedy() -> None:
    hf = fresh("llama")
    hf.__class__ = ScaledLlama
    hf.config.secret_multiplier = 0.5
    with pytest.raises(UnsupportedModelError, match=r"ScaledLlama.*secret_multiplier=0\.5.*docs/adding-a-model\.md"):
        Model(hf)


def test_a_field_that_the_models_source_never_mentions_is_let_through() -> None:
    hf = fresh("llama")
    hf.config.note_to_self = "trained on a Tuesday"
    assert Model(hf).listed
