"""Families that are not listed: their structure is found, or they are refused in words."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from families import (
    EVERY,
    GROUPED,
    HEADS_OF_8,
    LOCAL_EXPERTS,
    SMALL,
    STANDARD,
    VOCAB,
    build,
    fresh,
    loaded,
    tiny,
)
from whence.errors import UnsupportedModelError
from whence.model.layout import bind
from whence.model.model import Model
from whence.model.selfcheck import refuse_unless_passed, self_check
from whence.model.structure import infer

CAPPED = ("gemma2", "gemma2 window", "recurrent_gemma")
DEEPSEEK = dict(
    STANDARD,
    num_key_value_heads=4,
    moe_intermediate_size=16,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    n_shared_experts=1,
    first_k_dense_replace=1,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=8,
    head_dim=4,
)
HYBRID = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2, "mamba_chunk_size": 16}
UNLISTED: dict[str, dict[str, Any]] = {
    "codegen": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "rotary_dim": 8, "vocab_size": VOCAB},
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64, "vocab_size": VOCAB},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": VOCAB},
    "biogpt": STANDARD,
    "xglm": {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64, "vocab_size": VOCAB},
    "persimmon": STANDARD,
    "helium": HEADS_OF_8,
    "glm": HEADS_OF_8,
    "glm4": HEADS_OF_8,
    "olmo3": GROUPED,
    "exaone4": GROUPED,
    "nemotron": GROUPED,
    "smollm3": GROUPED,
    "cohere2": GROUPED,
    "arcee": GROUPED,
    "ernie4_5": GROUPED,
    "seed_oss": HEADS_OF_8,
    "hunyuan_v1_dense": HEADS_OF_8,
    "deepseek_v3": DEEPSEEK,
    "dots1": dict(DEEPSEEK, head_dim=8),
    "granitemoe": dict(GROUPED, **LOCAL_EXPERTS, residual_multiplier=0.22, logits_scaling=8.0),
    "granitemoehybrid": dict(
        GROUPED,
        **LOCAL_EXPERTS,
        **HYBRID,
        shared_intermediate_size=16,
        residual_multiplier=0.22,
        layer_types=["mamba", "attention", "mamba"],
    ),
    "bamba": dict(GROUPED, **HYBRID, attn_layer_indices=[1]),
    "falcon_mamba": dict(SMALL, num_hidden_layers=3, state_size=8),
    "qwen3_5_text": dict(
        HEADS_OF_8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
    ),
    "phimoe": dict(GROUPED, **LOCAL_EXPERTS),
}


def known(kind: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


@pytest.mark.parametrize("name", [name for name in EVERY if name not in CAPPED])
def test_inference_finds_what_the_table_says_of_a_listed_family(name: str) -> None:
    listed = loaded(name).layout
    inferred = bind(tiny(name), infer(tiny(name)))
    assert inferred.blocks == listed.blocks
    assert inferred.final_norm is listed.final_norm
    assert inferred.position is listed.position
    assert inferred.logit_scale == pytest.approx(listed.logit_scale, rel=1e-5)
    for ours, theirs in zip(inferred.writers, listed.writers, strict=True):
        assert ours.multiplier == pytest.approx(theirs.multiplier, rel=1e-5)
        for what in ("key", "write", "norm", "post_norm", "stage"):
            assert getattr(ours, what) is getattr(theirs, what) or getattr(ours, what) == getattr(theirs, what)
        assert ours.heads == (theirs.heads if ours.name == "attn" else None)
    refuse_unless_passed(inferred, self_check(inferred, VOCAB))


@pytest.mark.parametrize("kind", UNLISTED)
def test_an_unlisted_family_loads_and_adds_up(kind: str) -> None:
    if not known(kind):
        pytest.skip(f"this transformers has no {kind}")
    model = Model(build(kind, UNLISTED[kind]))
    assert not model.listed
    assert max(check.error for check in model.checks) < 1e-5
    for layer in range(model.n_layers):
        names = {writer.name for writer in model.layout.of(layer)}
        assert names & {"attn", "ssm"}
        assert names & {"mlp", "moe"} or kind == "falcon_mamba"


def test_an_inferred_entry_names_kinds_multipliers_and_positions() -> None:
    hybrid = Model(build("granitemoehybrid", UNLISTED["granitemoehybrid"]))
    assert [w.key for w in hybrid.layout.of(0)] == ["0.ssm", "0.moe", "0.mlp"]
    assert [w.key for w in hybrid.layout.of(1)] == ["1.attn", "1.moe", "1.mlp"]
    assert {round(w.multiplier, 5) for w in hybrid.layout.writers} == {0.22}
    positions = Model(build("biogpt", UNLISTED["biogpt"])).layout
    assert positions.position is positions.hf.biogpt.embed_positions
    assert Model(build("cohere2", GROUPED)).layout.logit_scale == pytest.approx(0.0625)


def refusal(hf: Any) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        infer(hf)
    message = str(caught.value)
    assert message.startswith(f"{type(hf).__name__}: family {hf.config.model_type!r} is not listed")
    assert message.endswith("docs/adding-a-model.md.")
    return message


@pytest.mark.parametrize("name", CAPPED)
def test_a_soft_cap_is_refused(name: str) -> None:
    assert "not a constant multiple" in refusal(tiny(name))


def test_half_precision_is_refused_with_the_dtype_to_load() -> None:
    assert "load it with dtype='float32'" in refusal(tiny("llama", torch.bfloat16))


def test_a_model_that_looks_ahead_is_refused() -> None:
    assert "no causal language model" in refusal(build("bert", dict(STANDARD)))


def test_a_block_that_normalises_its_output_is_refused() -> None:
    message = refusal(build("bert", dict(STANDARD, is_decoder=True)))
    assert re.search(r"outputs inside bert\.encoder\.layer\.0 \(BertLayer\) add up .* left over", message)


def changed(path: str, forward: Any) -> Any:
    """A llama one of whose modules computes something else."""
    hf = fresh("llama")
    module = hf.get_submodule(path)
    original = module.forward
    module.forward = lambda *args, **kwargs: forward(module, original, *args, **kwargs)
    return hf


def test_a_writer_that_is_not_linear_is_named() -> None:
    hf = changed("model.layers.1.self_attn.o_proj", lambda module, original, x: original(x).tanh())
    assert "model.layers.1.self_attn.o_proj (Linear) writes to the stream, but is neither linear" in refusal(hf)


def test_a_constant_that_differs_between_layers_is_named_with_both_values() -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module, factor: float) -> None:
            super().__init__()
            self.inner, self.factor = inner, factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * self.inner(x)

    hf = fresh("llama")
    for number, block in enumerate(hf.model.layers):
        block.mlp = Scaled(block.mlp, 1 + number)
    assert re.search(r"layers\.1\.mlp\.inner\.down_proj is multiplied by 2, but by 1 in an earlier block", refusal(hf))


def test_what_a_block_adds_without_a_module_is_refused_with_its_share() -> None:
    hf = changed("model.layers.0", lambda module, original, x, *args, **kwargs: original(x, *args, **kwargs) + 0.1)
    assert re.search(r"inside model\.layers\.0 .* [\d.]+% is left over", refusal(hf))


def test_a_stream_that_changes_between_blocks_is_refused() -> None:
    hf = fresh("llama")
    hf.model.layers[1].register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))
    assert "none of its module lists (model.layers) hands one stream from each member to the next" in refusal(hf)


def test_a_stream_that_changes_before_the_final_norm_is_refused() -> None:
    hf = fresh("llama")
    hf.model.norm.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    assert "no module takes the last block's output and returns what the output embedding reads" in refusal(hf)


def test_a_block_that_leaves_out_what_others_write_through_is_refused() -> None:
    hf = changed("model.layers.2.mlp", lambda module, original, x: 0 * original(x))
    assert "model.layers.2 has mlp.down_proj but does not write through it" in refusal(hf)


def test_a_forward_pass_that_needs_more_than_token_ids_is_refused() -> None:
    hf = changed(
        "model.layers.0", lambda module, original, x, extra=None, **kwargs: original(x, extra["image"], **kwargs)
    )
    assert "a forward pass on token ids alone failed with TypeError" in refusal(hf)


def test_inference_leaves_no_hook_behind() -> None:
    hf = fresh("llama")
    infer(hf)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hf.modules())
