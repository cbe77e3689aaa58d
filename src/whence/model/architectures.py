"""What whence knows of each family of models: one short declarative entry a family, and nothing else about it anywhere.

A decoder's stream is a sum of writes, x = embed + position + sum_w m_w PN_w(W_w a_w + b_w). An entry says where,
inside a block, each writer's last linear map W is, through which norm its sublayer reads the stream, which optional
post-norm PN and constant multiplier m stand between W and the stream, and in which order sublayers read it. It says
where the embedding, the blocks and the final norm are, and how raw logits become logits. What an entry claims is
checked on the model itself when it is loaded (selfcheck.py). To add a family, see docs/adding-a-model.md.

Paths are alternatives in order of preference, `"ln_attn|input_layernorm"`: the first that a block has is taken.
A sublayer whose `write` a block lacks is not in that block: hybrids list everything a block may hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["attn", "mlp", "moe", "ssm"]
Number = Callable[[Any], float]


@dataclass(frozen=True)
class Sublayer:
    """One thing a block may contain that reads the stream and writes to it."""

    kind: Kind
    module: str  # the sublayer as a module: what a dictionary replaces, what a graph holds constant
    write: str  # its last linear map, or the container of its experts
    norm: str | None  # what it reads the stream through; None reads it bare
    post_norm: str | None = None
    stage: int | Callable[[Any], int] = 0  # sublayers of one stage read the same stream
    multiplier: Number | None = None
    heads: str | None = None  # configuration field: number of heads whose outputs are W's input, side by side
    up: str | None = None  # of an MLP: the map whose rows are its neurons' input weights
    gate: str | None = None  # of a gated MLP; the same path as `up` where both are one matrix, gate first


@dataclass(frozen=True)
class Architecture:
    """A family of models as whence sees it."""

    sublayers: tuple[Sublayer, ...]
    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    position: str | None = None  # a learned position embedding, added to the token's
    logit_scale: Number | None = None
    softcap: str | None = None  # configuration field: logits are cap * tanh(raw / cap)
    patterns: Literal["registry", "method"] | None = None  # how attention patterns are read; None: they are not
    frozen: bool = False  # whether patterns and norms can be held constant, as attribution graphs need


def _parallel(name: str) -> Callable[[Any], int]:
    return lambda config: 0 if getattr(config, name) else 1


ATTN = Sublayer("attn", "self_attn", "self_attn.o_proj", "input_layernorm", heads="num_attention_heads")
MLP = Sublayer(
    "mlp", "mlp", "mlp.down_proj", "post_attention_layernorm", stage=1, up="mlp.up_proj", gate="mlp.gate_proj"
)
MOE = Sublayer("moe", "mlp", "mlp.experts", "post_attention_layernorm", stage=1)
LLAMA = Architecture((ATTN, MLP), patterns="registry", frozen=True)
LLAMA_MOE = replace(LLAMA, sublayers=(ATTN, MLP, MOE))

GPT_ATTN = Sublayer("attn", "attn", "attn.c_proj|attn.out_proj", "ln_1", heads="num_attention_heads")
GPT_MLP = Sublayer("mlp", "mlp", "mlp.c_proj|mlp.fc_out", "ln_2", stage=1, up="mlp.c_fc|mlp.fc_in")
GPT2 = Architecture(
    (GPT_ATTN, GPT_MLP), "transformer.h", "transformer.ln_f", "transformer.wpe", patterns="registry", frozen=True
)

NEOX_ATTN = Sublayer("attn", "attention", "attention.dense", "input_layernorm", heads="num_attention_heads")
NEOX_MLP = Sublayer(
    "mlp", "mlp", "mlp.dense_4h_to_h", "post_attention_layernorm|input_layernorm", stage=1, up="mlp.dense_h_to_4h"
)
BLOOM_ATTN = replace(NEOX_ATTN, module="self_attention", write="self_attention.dense", norm="ln_attn|input_layernorm")

POST_NORMED = (
    replace(ATTN, post_norm="post_attention_layernorm"),
    replace(MLP, norm="pre_feedforward_layernorm", post_norm="post_feedforward_layernorm"),
)
GEMMA2 = replace(LLAMA, sublayers=POST_NORMED, softcap="final_logit_softcapping")

MAMBA = Architecture((Sublayer("ssm", "mixer", "mixer.out_proj", "norm"),), "backbone.layers", "backbone.norm_f")
JAMBA_MLP = Sublayer(
    "mlp",
    "feed_forward",
    "feed_forward.down_proj",
    "pre_ff_layernorm",
    stage=1,
    up="feed_forward.up_proj",
    gate="feed_forward.gate_proj",
)


def _granite(sublayer: Sublayer) -> Sublayer:
    return replace(sublayer, multiplier=lambda config: config.residual_multiplier)


ARCHITECTURES: Mapping[str, Architecture] = {
    "gpt2": GPT2,
    "gpt_neo": replace(
        GPT2,
        sublayers=(replace(GPT_ATTN, module="attn.attention", write="attn.attention.out_proj"), GPT_MLP),
        patterns="method",
    ),
    "gptj": replace(
        GPT2,
        sublayers=(GPT_ATTN, replace(GPT_MLP, norm="ln_1", stage=0)),
        position=None,
        patterns="method",
    ),
    "gpt_neox": Architecture(
        (NEOX_ATTN, replace(NEOX_MLP, stage=_parallel("use_parallel_residual"))),
        "gpt_neox.layers",
        "gpt_neox.final_layer_norm",
        patterns="registry",
        frozen=True,
    ),
    "opt": Architecture(
        (
            replace(ATTN, write="self_attn.out_proj", norm="self_attn_layer_norm"),
            Sublayer("mlp", "fc2", "fc2", "final_layer_norm", stage=1, up="fc1"),
        ),
        "model.decoder.layers",
        "model.decoder.final_layer_norm",
        "model.decoder.embed_positions",
        patterns="registry",
        frozen=True,
    ),
    "bloom": Architecture((BLOOM_ATTN, NEOX_MLP), "transformer.h", "transformer.ln_f"),
    "falcon": Architecture(
        (
            BLOOM_ATTN,
            replace(
                NEOX_MLP,
                norm="ln_mlp|post_attention_layernorm|input_layernorm",
                stage=lambda config: 0 if config.parallel_attn or config.new_decoder_architecture else 1,
            ),
        ),
        "transformer.h",
        "transformer.ln_f",
    ),
    "phi": replace(
        LLAMA,
        sublayers=(
            replace(ATTN, write="self_attn.dense"),
            Sublayer("mlp", "mlp", "mlp.fc2", "input_layernorm", up="mlp.fc1"),
        ),
        final_norm="model.final_layernorm",
    ),
    "phi3": replace(LLAMA, sublayers=(ATTN, replace(MLP, up="mlp.gate_up_proj", gate="mlp.gate_up_proj"))),
    "stablelm": replace(
        LLAMA,
        sublayers=(
            ATTN,
            replace(MLP, norm="post_attention_layernorm|input_layernorm", stage=_parallel("use_parallel_residual")),
        ),
    ),
    "starcoder2": replace(LLAMA, sublayers=(ATTN, replace(MLP, write="mlp.c_proj", up="mlp.c_fc", gate=None))),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    # Checkpoints that also see images; what is attributed is the text they write.
    "gemma3": replace(GEMMA2, blocks="model.language_model.layers", final_norm="model.language_model.norm"),
    "olmo": LLAMA,
    "olmo2": replace(LLAMA, sublayers=(replace(POST_NORMED[0], norm=None), replace(POST_NORMED[1], norm=None))),
    "granite": replace(
        LLAMA, sublayers=(_granite(ATTN), _granite(MLP)), logit_scale=lambda config: 1 / config.logits_scaling
    ),
    "cohere": replace(
        LLAMA,
        sublayers=(ATTN, replace(MLP, norm="input_layernorm", stage=0)),
        logit_scale=lambda config: config.logit_scale,
    ),
    "mixtral": LLAMA_MOE,
    "qwen2_moe": LLAMA_MOE,
    "qwen3_moe": LLAMA_MOE,
    "olmoe": LLAMA_MOE,
    "gpt_oss": LLAMA_MOE,
    "mamba": MAMBA,
    "mamba2": replace(MAMBA, sublayers=(replace(MAMBA.sublayers[0], heads="num_heads"),)),
    "jamba": Architecture(
        (
            ATTN,
            Sublayer("ssm", "mamba", "mamba.out_proj", "input_layernorm"),
            JAMBA_MLP,
            Sublayer("moe", "feed_forward", "feed_forward.experts", "pre_ff_layernorm", stage=1),
        ),
        final_norm="model.final_layernorm",
        patterns="registry",
        frozen=True,
    ),
    "falcon_h1": Architecture(
        (
            Sublayer(
                "ssm",
                "mamba",
                "mamba.out_proj",
                "input_layernorm",
                multiplier=lambda config: config.ssm_out_multiplier,
                heads="mamba_n_heads",
            ),
            replace(ATTN, multiplier=lambda config: config.attention_out_multiplier),
            replace(JAMBA_MLP, multiplier=lambda config: config.mlp_multipliers[1]),
        ),
        final_norm="model.final_layernorm",
        logit_scale=lambda config: config.lm_head_multiplier,
        patterns="registry",
        frozen=True,
    ),
    "qwen3_next": Architecture(
        (
            ATTN,
            Sublayer("ssm", "linear_attn", "linear_attn.out_proj", "input_layernorm", heads="linear_num_value_heads"),
            MLP,
            MOE,
        )
    ),
    "recurrent_gemma": Architecture(
        (
            Sublayer("attn", "temporal_block", "temporal_block.o_proj", "temporal_pre_norm", heads=ATTN.heads),
            Sublayer("ssm", "temporal_block", "temporal_block.linear_out", "temporal_pre_norm"),
            Sublayer(
                "mlp",
                "mlp_block",
                "mlp_block.down_proj",
                "channel_pre_norm",
                stage=1,
                up="mlp_block.up_proj",
                gate="mlp_block.gate_proj",
            ),
        ),
        final_norm="model.final_norm",
        softcap="logits_soft_cap",
    ),
}


@dataclass(frozen=True)
class Support:
    """What works for a family: one row of `whence models`."""

    heads: bool
    neurons: bool
    experts: bool
    channels: bool
    source_tokens: bool
    graphs: bool


def support(architecture: Architecture) -> Support:
    """What an entry makes possible."""
    kinds = {sublayer.kind for sublayer in architecture.sublayers}
    return Support(
        heads="attn" in kinds or any(s.heads for s in architecture.sublayers),
        neurons="mlp" in kinds,
        experts="moe" in kinds,
        channels="ssm" in kinds,
        source_tokens=architecture.patterns is not None,
        graphs=architecture.frozen,
    )
