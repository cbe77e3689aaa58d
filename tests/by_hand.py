"""Direct effects the slow way, from weights and forward hooks alone: what the library's scores are held against.

A unit's write is made explicit as a vector, then removed from the final stream while the final norm keeps its scale;
the logit moves by the unit's direct effect. Nothing here uses the library, its families' entries or its probing.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

LLAMA = {"blocks": "model.layers", "norm": "model.norm", "attn": "self_attn.o_proj", "mlp": "mlp.down_proj"}
GPT2 = {"blocks": "transformer.h", "norm": "transformer.ln_f", "attn": "attn.c_proj", "mlp": "mlp.c_proj"}
NEOX = {
    "blocks": "gpt_neox.layers",
    "norm": "gpt_neox.final_layer_norm",
    "attn": "attention.dense",
    "mlp": "mlp.dense_4h_to_h",
}
BLOOM = {**GPT2, "attn": "self_attention.dense", "mlp": "mlp.dense_4h_to_h"}
MAMBA = {"blocks": "backbone.layers", "norm": "backbone.norm_f", "ssm": "mixer.out_proj"}
POST = {"attn post": "post_attention_layernorm", "mlp post": "post_feedforward_layernorm"}

PATHS: dict[str, dict[str, str]] = {
    "gpt2": GPT2,
    "gpt_neo": {**GPT2, "attn": "attn.attention.out_proj"},
    "gptj": {**GPT2, "attn": "attn.out_proj", "mlp": "mlp.fc_out"},
    "gpt_neox": NEOX,
    "opt": {
        "blocks": "model.decoder.layers",
        "norm": "model.decoder.final_layer_norm",
        "attn": "self_attn.out_proj",
        "mlp": "fc2",
    },
    "bloom": BLOOM,
    "falcon": BLOOM,
    "phi": {**LLAMA, "norm": "model.final_layernorm", "attn": "self_attn.dense", "mlp": "mlp.fc2"},
    "starcoder2": {**LLAMA, "mlp": "mlp.c_proj"},
    "gemma2": {**LLAMA, **POST},
    "gemma3_text": {**LLAMA, **POST},
    "olmo2": {**LLAMA, **POST},
    "mamba": MAMBA,
    "mamba2": MAMBA,
    "jamba": {**LLAMA, "norm": "model.final_layernorm", "ssm": "mamba.out_proj", "mlp": "feed_forward.down_proj"},
    "falcon_h1": {**LLAMA, "norm": "model.final_layernorm", "ssm": "mamba.out_proj", "mlp": "feed_forward.down_proj"},
    "qwen3_next": {**LLAMA, "ssm": "linear_attn.out_proj"},
    "recurrent_gemma": {
        "blocks": "model.layers",
        "norm": "model.final_norm",
        "attn": "temporal_block.o_proj",
        "ssm": "temporal_block.linear_out",
        "mlp": "mlp_block.down_proj",
    },
}


def paths(hf: Any) -> dict[str, str]:
    return PATHS.get(hf.config.model_type, LLAMA)


def block(hf: Any, layer: int) -> nn.Module:
    return hf.get_submodule(paths(hf)["blocks"])[layer]


def final_norm(hf: Any) -> nn.Module:
    return hf.get_submodule(paths(hf)["norm"])


def submodule(root: nn.Module, path: str) -> nn.Module | None:
    return dict(root.named_modules()).get(path)


def multiplier(hf: Any, kind: str) -> float:
    """What a family multiplies a sublayer's write by."""
    config = hf.config
    if config.model_type == "granite":
        return config.residual_multiplier
    if config.model_type == "falcon_h1":
        return {
            "attn": config.attention_out_multiplier,
            "ssm": config.ssm_out_multiplier,
            "mlp": config.mlp_multipliers[1],
        }[kind]
    return 1.0


@torch.no_grad()
def calls(hf: Any, ids: Tensor, *modules: nn.Module, **kwargs: Any) -> tuple[list[tuple[tuple[Any, ...], Any]], Any]:
    """(arguments, output) of each module in one plain forward pass, and what the model returned."""
    seen: dict[nn.Module, tuple[tuple[Any, ...], Any]] = {}

    def keep(module: nn.Module, args: Any, kw: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        given = tuple(v.clone() if isinstance(v, Tensor) else v for v in (*args, *kw.values()))
        seen[module] = (given, first.clone())

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        result = hf(input_ids=ids, use_cache=False, **kwargs)
    return [seen[module] for module in modules], result


def matrix(linear: nn.Module) -> Tensor:
    """[d_model, inputs]."""
    return linear.weight.T if type(linear).__name__ == "Conv1D" else linear.weight


def held(norm: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The norm with the scale that it has at x: affine."""
    centred = "LayerNorm" in type(norm).__name__
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or 1e-5
    bias = getattr(norm, "bias", None)
    bias = torch.zeros(x.shape[-1], dtype=x.dtype) if bias is None else bias

    def scale(y: Tensor) -> Tensor:
        y = y - y.mean(-1, keepdim=True) if centred else y
        return (y.square().mean(-1, keepdim=True) + eps).sqrt()

    return lambda y: (norm(y) - bias) * scale(y) / scale(x) + bias


class Slow:
    """One forward pass of a model, and the direct effect of any write on chosen logits."""

    def __init__(self, hf: Any, ids: Tensor) -> None:
        self.hf, self.ids = hf, ids
        (norm,), result = calls(hf, ids, final_norm(hf))
        self.stream, self.logits = norm[0][0], result.logits
        self.norm = held(final_norm(hf), self.stream)

    @torch.no_grad()
    def read(self, stream: Tensor) -> Tensor:
        """Logits, scale included and cap left out, of a final stream, the norm's scale held."""
        config = self.hf.config
        logits = self.hf.get_output_embeddings()(self.norm(stream))
        scale = {
            "cohere": getattr(config, "logit_scale", 1.0),
            "granite": 1 / getattr(config, "logits_scaling", 1.0),
            "falcon_h1": getattr(config, "lm_head_multiplier", 1.0),
        }
        return logits * scale.get(config.model_type, 1.0)

    def effect(self, write: Tensor, token: int) -> Tensor:
        """[example, pos]: how far the (capped, by its secant) logit falls when this write is taken from the stream."""
        full = self.read(self.stream)[..., token]
        return (full - self.read(self.stream - write)[..., token]) * self.logits[..., token] / full

    @torch.no_grad()
    def write(self, kind: str, layer: int, columns: slice) -> Tensor:
        """[example, pos, d_model]: what some input channels of a writer add to the stream."""
        here = block(self.hf, layer)
        last = submodule(here, paths(self.hf)[kind])
        (call,), _ = calls(self.hf, self.ids, last)
        a = call[0][0].reshape(*self.ids.shape, -1)[..., columns]
        return self.after(kind, layer, a @ matrix(last)[:, columns].T)

    @torch.no_grad()
    def after(self, kind: str, layer: int, part: Tensor) -> Tensor:
        """Part of a last map's output, through post-norm and multiplier."""
        post = submodule(block(self.hf, layer), paths(self.hf).get(f"{kind} post", "none"))
        if post is not None:
            (call,), _ = calls(self.hf, self.ids, post)
            part = held(post, call[0][0])(part)  # RMS norms: no constant of their own
        return multiplier(self.hf, kind) * part
