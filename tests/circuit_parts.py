"""Sites by hand for the circuit oracle: which module, and the formulas that split what passes it into units."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from whence.components.sae import SAE
from whence.components.transcoder import Transcoder

Vectors = tuple[Tensor, Tensor]  # a site's own, and what its features read


class Split(Protocol):
    """How a vector is made of units."""

    def numbers(self, own: Tensor, read: Tensor, gradient: Tensor) -> Tensor:
        """[.., unit]: what each unit writes, by a gradient."""
        ...

    def moves(self, clean: Vectors, patch: Vectors) -> Tensor:
        """[.., unit, d]: what each unit's difference writes."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """Features, the skip's output if there is one, the error; autograd through the formulas is their derivative."""

    of: Any

    def said(self, own: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """[.., feature] and vectors [.., k, d]."""
        one = self.of
        pre = read @ one.W_enc.T + one.b_enc
        kind = one.activation.kind
        kept = pre > 0
        if kind == "topk":
            kept = kept & (pre >= pre.topk(one.activation.k, dim=-1).values[..., -1:])
        if kind == "jumprelu":
            kept = pre > one.activation.threshold
        features = torch.where(kept, pre, 0.0)
        rest = own - features @ one.W_dec - one.b_dec
        if getattr(one, "W_skip", None) is None:
            return features, rest[..., None, :]
        skip = read @ one.W_skip.T
        return features, torch.stack([skip, rest - skip], -2)

    def numbers(self, own: Tensor, read: Tensor, gradient: Tensor) -> Tensor:
        features, vectors = self.said(own, read)
        return torch.cat([features * (gradient @ self.of.W_dec.T), (vectors * gradient[..., None, :]).sum(-1)], -1)

    def moves(self, clean: Vectors, patch: Vectors) -> Tensor:
        (f1, v1), (f0, v0) = self.said(*patch), self.said(*clean)
        return torch.cat([(f1 - f0)[..., None] * self.of.W_dec, v1 - v0], -2)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Equal parts of a vector."""

    count: int

    def numbers(self, own: Tensor, read: Tensor, gradient: Tensor) -> Tensor:
        return torch.stack([part.sum(-1) for part in (own * gradient).chunk(self.count, -1)], -1)

    def moves(self, clean: Vectors, patch: Vectors) -> Tensor:
        delta = patch[0] - clean[0]
        block = torch.arange(delta.shape[-1]) // (delta.shape[-1] // self.count)
        return torch.stack([delta * (block == one) for one in range(self.count)], -2)


@dataclass(frozen=True, eq=False)
class Part:
    """A site: what whence calls it, the module whose output (or input) it is, and what its features read if not that.

    That is told of one module's input and output.
    """

    key: str
    module: nn.Module
    before: bool
    split: Split
    reads: nn.Module | None = None
    reading: Callable[[Tensor, Tensor], Tensor] = lambda given, out: out


def block_of(hf: Any, layer: int) -> Any:
    """One of the blocks."""
    family = hf.config.model_type
    return (hf.gpt_neox.layers if family == "gpt_neox" else hf.transformer.h if family == "gpt2" else hf.model.layers)[
        layer
    ]


def places(hf: Any, layer: int) -> dict[str, tuple[nn.Module, bool]]:
    """The modules of a block's sites, and whether what goes in counts."""
    block, family = block_of(hf, layer), hf.config.model_type
    attn = getattr(block, {"gpt_neox": "attention", "gpt2": "attn"}.get(family, "self_attn"))
    attn_out = getattr(attn, {"gpt_neox": "dense", "gpt2": "c_proj"}.get(family, "o_proj"))
    mlp_out = getattr(block.mlp, {"gpt_neox": "dense_4h_to_h", "gpt2": "c_proj"}.get(family, "down_proj"))
    post = hasattr(block, "post_feedforward_layernorm")
    return {
        "resid_pre": (block, True),
        "attn_z": (attn_out, True),
        "attn_out": (attn_out, False),
        "attn_out_normed": (block.post_attention_layernorm if post else attn_out, False),
        "neurons": (mlp_out, True),
        "mlp_out": (mlp_out, False),
        "mlp_out_normed": (block.post_feedforward_layernorm if post else mlp_out, False),
        "resid_post": (block, False),
    }


def sae_part(hf: Any, sae: SAE) -> Part:
    """Where an SAE is; the embedding's vector is without learned positions."""
    name = sae.site.removesuffix("_normed")
    if sae.site == "embed":
        return Part("0.embed", *_embedding(hf), Features(sae))
    return Part(f"{sae.layer}.{name}", *places(hf, sae.layer)[sae.site], Features(sae))


def transcoder_part(hf: Any, one: Transcoder) -> Part:
    """Where a transcoder is; it reads at the norm before the MLP."""
    block, family = block_of(hf, one.layer), hf.config.model_type
    centred = family in ("gpt2", "gpt_neox")

    def normalized(x: Tensor, _: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if centred else x
        epsilon = norm.eps if centred else norm.variance_epsilon
        # A norm's gain is read from a vector of mean square 1, so the scale that is left of it has this factor.
        return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * (1 + epsilon) ** 0.5

    reading = {"mlp_in": lambda _, out: out, "resid_mid": lambda x, _: x, "mlp_in_normalized": normalized}[one.reads]
    names = {"gpt2": "ln_2", "gemma2": "pre_feedforward_layernorm"}
    norm = getattr(block, names.get(family, "post_attention_layernorm"))
    return Part(f"{one.layer}.mlp", *places(hf, one.layer)[one.writes], Features(one), norm, reading)


def native_parts(hf: Any, name: str, layers: int) -> list[Part]:
    """Heads, neurons, whole sublayers, or the token embeddings."""
    if name == "embed":
        return [Part("embed", *_embedding(hf), Blocks(1))]
    site = {"attn.head": "attn_z", "mlp.neuron": "neurons", "attn": "attn_out_normed", "mlp": "mlp_out_normed"}[name]
    found = [places(hf, layer)[site] for layer in range(layers)]
    heads = hf.config.num_attention_heads
    widths = {"attn.head": heads, "mlp.neuron": getattr(hf.config, "n_inner", None) or 4 * hf.config.hidden_size}
    if hasattr(hf.config, "intermediate_size"):
        widths["mlp.neuron"] = hf.config.intermediate_size
    kind = name.partition(".")[0]
    return [Part(f"{layer}.{kind}", *place, Blocks(widths.get(name, 1))) for layer, place in enumerate(found)]


def _embedding(hf: Any) -> tuple[nn.Module, bool]:
    return (hf.transformer.wte, False) if hf.config.model_type == "gpt2" else (block_of(hf, 0), True)
