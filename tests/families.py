"""Tiny random models of every listed family, and variants of some.

Norm gains and biases are away from 1 and 0, and matrices large enough for attention to choose.
"""

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from whence.model.model import Model

torch.set_num_threads(1)  # on models this small, threads only wait for one another

VOCAB, LAYERS, WIDTH = 64, 3, 32
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SMALL = dict(hidden_size=WIDTH, initializer_range=0.15, **TOKENS)
STANDARD = dict(
    SMALL, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64
)
GROUPED = dict(STANDARD, num_key_value_heads=2)
HEADS_OF_8 = dict(GROUPED, head_dim=8)
GEMMA = dict(HEADS_OF_8, query_pre_attn_scalar=8, sliding_window=32)
GPT2 = dict(n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=64, initializer_range=0.15, **TOKENS)
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FALCON = dict(SMALL, num_hidden_layers=LAYERS, num_attention_heads=4, bias=True)
QWEN2_MOE = dict(GROUPED, **EXPERTS, moe_intermediate_size=16, shared_expert_intermediate_size=32)

# Keys start with the model type; what follows tells configurations of one family apart.
LISTED: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gptj": dict(GPT2, rotary_dim=8),
    "gpt_neo": dict(
        SMALL,
        num_layers=LAYERS,
        num_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        attention_types=[[["global"], LAYERS]],
    ),
    "gpt_neox": STANDARD,
    "gpt_neox sequential": dict(STANDARD, use_parallel_residual=False),
    "opt": dict(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=64,
        word_embed_proj_dim=WIDTH,
        init_std=0.15,
        **TOKENS,
    ),
    "bloom": dict(SMALL, n_layer=LAYERS, n_head=4),
    "falcon": dict(FALCON, new_decoder_architecture=False, parallel_attn=True, multi_query=True),
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "phi3": GROUPED,
    "stablelm": GROUPED,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "starcoder2": GROUPED,
    "phi": STANDARD,
    "qwen3": HEADS_OF_8,
    "gemma": HEADS_OF_8,
    "gemma2": dict(GEMMA, final_logit_softcapping=3.0),
    "gemma3_text": GEMMA,
    "cohere": dict(GROUPED, logit_scale=0.0625),
    "granite": dict(
        GROUPED, embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0, attention_multiplier=0.125
    ),
    "mixtral": dict(GROUPED, **LOCAL_EXPERTS),
    "olmoe": dict(GROUPED, **EXPERTS),
    "qwen2_moe": QWEN2_MOE,
    "qwen3_moe": dict(HEADS_OF_8, **EXPERTS, moe_intermediate_size=16),
    "gpt_oss": dict(HEADS_OF_8, **LOCAL_EXPERTS, sliding_window=32),
    "mamba": dict(SMALL, num_hidden_layers=LAYERS, state_size=8),
    "mamba2": dict(
        SMALL, num_hidden_layers=LAYERS, state_size=8, num_heads=8, head_dim=8, expand=2, n_groups=1, chunk_size=16
    ),
    "jamba": dict(
        GROUPED,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        num_experts_per_tok=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        use_mamba_kernels=False,
        mamba_d_state=8,
    ),
    "falcon_h1": dict(
        HEADS_OF_8,
        mamba_d_ssm=64,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_chunk_size=16,
        mamba_d_state=8,
        attention_out_multiplier=0.7,
        ssm_out_multiplier=1.3,
        lm_head_multiplier=0.5,
        mlp_multipliers=[1.1, 0.6],
    ),
    "qwen3_next": dict(
        HEADS_OF_8,
        **EXPERTS,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
    ),
    "recurrent_gemma": dict(
        STANDARD, num_key_value_heads=1, lru_width=32, head_dim=8, attention_window_size=32, logits_soft_cap=3.0
    ),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama biased": dict(GROUPED, attention_bias=True, mlp_bias=True),
    "llama tied": dict(GROUPED, tie_word_embeddings=True),
    "qwen2_moe dense": dict(QWEN2_MOE, mlp_only_layers=[0]),
    "stablelm parallel": dict(GROUPED, use_parallel_residual=True),
    "falcon new": dict(FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon sequential": dict(
        FALCON, new_decoder_architecture=False, parallel_attn=False, multi_query=False, alibi=True
    ),
    "mistral window": dict(GROUPED, sliding_window=3),
    "gemma2 window": dict(GEMMA, sliding_window=3, final_logit_softcapping=3.0),
    "gpt_oss window": dict(HEADS_OF_8, **LOCAL_EXPERTS, sliding_window=3),
    "gpt_neo local": dict(
        SMALL,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        attention_types=[[["global", "local"], 1]],
        window_size=3,
    ),
}

# A model that also sees images, around the text model of another entry: loaded and attributed like that one.
MULTIMODAL: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": dict(GEMMA),
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 16,
            "patch_size": 8,
        },
        "mm_tokens_per_image": 1,
    }
}

FAMILIES = tuple(LISTED)
EVERY = (*LISTED, *VARIANTS)
GRAPH_FAMILIES = (
    *(
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "olmo2",
        "phi",
        "phi3",
    ),
    *("cohere", "granite", "starcoder2", "stablelm", "mixtral", "qwen3_moe", "gpt_oss", "opt", "gptj", "gpt_neo"),
    *("olmo", "olmoe", "qwen2_moe", "jamba", "falcon_h1"),
)


def model_type(name: str) -> str:
    return name.split()[0]


def tiny(name: str, dtype: torch.dtype = torch.float32, seed: int = 1) -> PreTrainedModel:
    """The model of this name in evaluation mode, shared by every test of the process: do not change it; see `fresh`."""
    return _tiny(name, dtype, seed)  # the cache tells a default from the same value written out


def loaded(name: str, dtype: torch.dtype = torch.float32) -> Model:
    """The same model, loaded by whence and shared likewise."""
    return _loaded(name, dtype)


@cache
def _tiny(name: str, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    return fresh(name, dtype, seed)


@cache
def _loaded(name: str, dtype: torch.dtype) -> Model:
    return Model(tiny(name, dtype))


def fresh(name: str, dtype: torch.dtype = torch.float32, seed: int = 1, **settings: Any) -> PreTrainedModel:
    """A model of one's own, with some settings of the configuration changed; the weights depend on the seed alone."""
    base = (LISTED | VARIANTS | MULTIMODAL)[name]
    return build(model_type(name), {**base, **settings}, dtype, seed)


def build(kind: str, settings: dict[str, Any], dtype: torch.dtype = torch.float32, seed: int = 1) -> PreTrainedModel:
    """A perturbed random model of any model type that transformers has."""
    # The fused expert kernels know no float64.
    options = {"experts_implementation": "eager"} if dtype == torch.float64 else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), **options).eval()
    perturb(model, seed)
    return model.to(dtype)


@torch.no_grad()
def perturb(model: torch.nn.Module, seed: int = 0) -> None:
    """Move norm gains and biases away from 1 and 0, and matrices far enough for attention to choose."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            parameter.copy_(0.1 * noise)
        elif parameter.ndim > 1:
            parameter.add_(0.15 * noise)
        elif "norm" in name or "ln_" in name:
            parameter.add_(0.3 * noise)


def prompts(count: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(4, VOCAB, (count, length), generator=torch.Generator().manual_seed(seed))
