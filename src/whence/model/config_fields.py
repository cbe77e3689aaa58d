"""Configuration fields of the listed families that whence understands; any other that changes the forward is refused.

A field can change the forward pass if the source of the model's own module mentions it. If it does, is not understood
here, and differs from its family's default, loading fails, naming it: a new multiplier or cap in a future version
of a family must not be absorbed quietly. Fields here either set sizes, act inside a sublayer before its last linear map
(where the recorded activations already hold their effect), or are handled by the family's entry.
Left out on purpose, so that only their defaults pass: `add_cross_attention`, `do_layer_norm_before`,
`_remove_final_layer_norm`, `apply_residual_connection_post_layernorm`, `use_bidirectional_attention`.
"""

import inspect
import re
import sys
from typing import Any

from whence.errors import UnsupportedModelError

UNDERSTOOD = frozenset(
    name
    for group in (
        # sizes and tokens
        (
            "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size "
            "head_dim max_position_embeddings n_embd n_head n_inner n_layer n_positions num_heads num_layers "
            "ffn_dim ffn_hidden_size  bos_token_id eos_token_id pad_token_id "
            "tie_word_embeddings num_kv_heads lru_width moe_intermediate_size shared_expert_intermediate_size "
            "num_experts num_local_experts num_experts_per_tok"
        ),
        # how to run, what to return, training alone
        (
            "use_cache output_router_logits output_attentions output_hidden_states return_dict initializer_range "
            "init_std dtype attention_dropout attn_pdrop embd_pdrop resid_pdrop hidden_dropout embed_dropout "
            "resid_dropout dropout layerdrop classifier_dropout embedding_dropout residual_dropout "
            "router_aux_loss_coef router_jitter_noise num_logits_to_keep summary_activation summary_first_dropout "
            "summary_proj_to_labels summary_type summary_use_proj pretraining_tp chunk_size_feed_forward "
            "is_decoder problem_type num_labels rescale_prenorm_residual w_init_variance_scale "
            "final_w_init_variance_scale time_step_init_scheme time_step_scale use_mambapy use_associative_scan "
            "use_mamba_kernels slow_but_exact"
        ),
        # inside attention
        (
            "rope_parameters rope_theta rope_scaling partial_rotary_factor rotary_dim "
            "original_max_position_embeddings layer_types sliding_window _sliding_window_pattern "
            "use_sliding_window max_window_layers attention_layers attention_types window_size "
            "attention_window_size attention_bias qkv_bias use_qkv_bias qk_layernorm use_qk_norm clip_qkv alibi "
            "multi_query scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn "
            "query_pre_attn_scalar attn_logit_softcapping attention_multiplier attention_in_multiplier "
            "key_multiplier"
        ),
        # inside an MLP, an expert or its router
        (
            "hidden_act hidden_activation activation activation_function mlp_bias bias use_bias enable_bias "
            "norm_topk_prob swiglu_alpha swiglu_limit decoder_sparse_step mlp_only_layers expert_layer_offset "
            "expert_layer_period"
        ),
        # inside a recurrent sublayer
        (
            "conv_kernel expand state_size time_step_floor time_step_max time_step_min time_step_rank "
            "time_step_limit use_conv_bias chunk_size n_groups mamba_chunk_size mamba_conv_bias mamba_d_conv "
            "mamba_d_head mamba_d_ssm mamba_d_state mamba_dt_rank mamba_expand mamba_n_groups mamba_n_heads "
            "mamba_norm_before_gate mamba_proj_bias mamba_rms_norm projectors_bias ssm_in_multiplier "
            "ssm_multipliers linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads "
            "linear_num_value_heads linear_value_head_dim attn_layer_offset attn_layer_period block_types "
            "conv1d_width"
        ),
        # norms, which are probed; where sublayers read
        (
            "rms_norm_eps layer_norm_epsilon layer_norm_eps norm_epsilon layer_norm_elementwise_affine "
            "use_parallel_residual parallel_attn new_decoder_architecture num_ln_in_parallel_attn "
            "residual_in_fp32"
        ),
        # constants of the stream and the logits: scaled embeddings are read after scaling, the rest is in the entries
        (
            "embedding_multiplier residual_multiplier logits_scaling logit_scale ssm_out_multiplier "
            "attention_out_multiplier mlp_multipliers lm_head_multiplier final_logit_softcapping logits_soft_cap"
        ),
    )
    for name in group.split()
)


def refuse_unknown_fields(hf: Any) -> None:
    """Refuse a model whose configuration holds a field that matters and is not understood.

    Raises:
        UnsupportedModelError: naming each field, its value and its default.
    """
    config = hf.config.get_text_config()
    defaults = type(config)().to_dict()
    candidates = {
        name: value
        for name, value in config.to_dict().items()
        if name not in UNDERSTOOD
        and (name not in defaults or value != defaults[name])
        and not (name == "word_embed_proj_dim" and value == config.hidden_size)  # no projection, then
    }
    source = inspect.getsource(sys.modules[type(hf).__module__]) if candidates else ""
    unknown = [
        name
        for name in sorted(candidates)
        if re.search(rf"config\.{re.escape(name)}\b|['\"]{re.escape(name)}['\"]", source)
    ]
    if unknown:
        seen = ", ".join(f"{name}={candidates[name]!r} (default {defaults.get(name, 'none')!r})" for name in unknown)
        raise UnsupportedModelError(
            f"{type(hf).__name__}: configuration field not understood, though its forward pass reads it: {seen}. Set "
            "it to its default, or teach whence what it does (whence.model.config_fields, docs/adding-a-model.md)."
        )
