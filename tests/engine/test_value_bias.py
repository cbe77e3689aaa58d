import pytest
import torch

import families
import whence
from by_hand import block
from whence.engine.value_bias import value_biases


def biases(name: str) -> tuple[torch.nn.Module, dict[int, torch.Tensor]]:
    hf = families.tiny(name)
    return hf, value_biases(whence.Model(hf).layout)


def test_value_biases_are_those_stored_however_a_family_stores_them() -> None:
    hf, found = biases("gpt2")  # the last third of one matrix
    assert torch.allclose(found[1], block(hf, 1).attn.c_attn.bias[64:].reshape(4, 8), atol=1e-6)
    hf, found = biases("gpt_neox")  # interleaved head by head
    assert torch.allclose(found[2], block(hf, 2).attention.query_key_value.bias.reshape(4, 3, 8)[:, 2], atol=1e-6)
    hf, found = biases("llama biased")  # two groups of two heads
    stored = block(hf, 0).self_attn.v_proj.bias.reshape(2, 8).repeat_interleave(2, dim=0)
    assert torch.allclose(found[0], stored, atol=1e-6)


def test_a_model_without_value_biases_has_zeros_and_one_without_attention_none() -> None:
    assert all(bool((bias == 0).all()) for bias in biases("llama")[1].values())
    assert biases("mamba")[1] == {}


def test_attention_is_as_before_afterwards() -> None:
    hf = families.fresh("gpt2")
    model = whence.Model(hf)
    ids = families.prompts()
    before = hf(ids).logits
    value_biases(model.layout)
    assert torch.equal(hf(ids).logits, before)


@pytest.mark.parametrize(("name", "why"), [("gpt_oss", "attention sinks"), ("falcon", "cannot be read")])
def test_where_a_value_bias_is_no_constant_folding_is_refused(name: str, why: str) -> None:
    with pytest.raises(NotImplementedError, match=why):
        biases(name)
