"""Where the matrices and norms of some families stand, by hand, and the oracle of a model that is cut at them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dataset_oracle import Cut, Oracle, matrix, norm, read, stored, vector
from whence.components.parameters import ParameterComponents


@dataclass(frozen=True)
class Paths:
    """Module paths of one family; those of a block below `block`."""

    embed: str
    block: str
    matrices: dict[str, str]
    norms: tuple[str, ...]
    final: str
    position: str | None = None


_GPT2 = {
    "attn_fused.qkv": "attn.c_attn",
    "attn_fused.o": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_NEOX = {
    "attn_fused.qkv": "attention.query_key_value",
    "attn_fused.o": "attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}
_ATTN = {f"attn.{end}": f"self_attn.{end}_proj" for end in "qkvo"}
_GLU = {f"glu.{end}": f"mlp.{end}_proj" for end in ("gate", "up", "down")}
_LLAMA = Paths(
    "model.embed_tokens",
    "model.layers",
    {**_ATTN, **_GLU},
    ("input_layernorm", "post_attention_layernorm"),
    "model.norm",
)
FAMILIES = {
    "llama biased": _LLAMA,
    "granite": _LLAMA,
    "mixtral": _LLAMA,
    "gemma": _LLAMA,
    "gemma2 window": replace(_LLAMA, norms=(*_LLAMA.norms, "pre_feedforward_layernorm", "post_feedforward_layernorm")),
    "gpt2": Paths("transformer.wte", "transformer.h", _GPT2, ("ln_1", "ln_2"), "transformer.ln_f", "transformer.wpe"),
    "opt": Paths(
        "model.decoder.embed_tokens",
        "model.decoder.layers",
        {**_ATTN, "attn.o": "self_attn.out_proj", "mlp.up": "fc1", "mlp.down": "fc2"},
        ("self_attn_layer_norm", "final_layer_norm"),
        "model.decoder.final_layer_norm",
        "model.decoder.embed_positions",
    ),
    "gpt_neox": Paths(
        "gpt_neox.embed_in",
        "gpt_neox.layers",
        _NEOX,
        ("input_layernorm", "post_attention_layernorm"),
        "gpt_neox.final_layer_norm",
    ),
}


@dataclass(frozen=True, eq=False)
class Places:
    """The modules of one model by what they are."""

    name: str
    hf: Any

    @property
    def paths(self) -> Paths:
        return FAMILIES[self.name]

    def at(self, path: str) -> Any:
        return self.hf.get_submodule(path)

    def matrix(self, site: str) -> Any:
        if site == "embed.matrix":
            return self.at(self.paths.embed)
        if site == "output.matrix":
            return self.hf.get_output_embeddings()
        layer, _, name = site.partition(".")
        return self.at(f"{self.paths.block}.{layer}.{self.paths.matrices[name]}")

    def norm(self, layer: int, which: int) -> Any:
        return self.at(f"{self.paths.block}.{layer}.{self.paths.norms[which]}")

    def norms(self) -> tuple[Cut, ...]:
        """Every norm, written out."""
        layers = range(len(self.at(self.paths.block)))
        own = [(f"{layer}.{path}", self.norm(layer, n)) for layer in layers for n, path in enumerate(self.paths.norms)]
        return tuple(norm(name, module) for name, module in [*own, ("final", self.at(self.paths.final))])

    def embeddings(self, tokens: bool = True) -> tuple[Cut, ...]:
        """Tokens and learned positions."""
        found = [vector("embed", self.at(self.paths.embed))] if tokens else []
        if self.paths.position is not None:
            found.append(vector("pos_embed", self.at(self.paths.position)))
        return tuple(found)

    def output(self, tokens: Tensor, stream: bool = True) -> tuple[Cut, ...]:
        """Logits, and the coordinates that they are made of."""
        head = self.hf.get_output_embeddings()
        weight = stored(head)
        found = [read("output.stream", head, torch.eye(weight.shape[1]).to(weight), before=True)] if stream else []
        return (*found, read("output", head, weight[tokens], before=True))

    def parts(self, components: ParameterComponents) -> tuple[Cut, ...]:
        """Every decomposed matrix; the module of an embedding may multiply its rows."""
        found: list[Cut] = []
        for part in components:
            module = self.matrix(part.site)
            U = part.U * float(getattr(module, "embed_scale", 1.0))
            found.append(matrix(part.site, module, part.V, U, part.ids, part.site == "embed.matrix"))
        return tuple(found)

    def oracle(self, components: ParameterComponents, seen: Tensor, tokens: Tensor) -> Oracle:
        """Cut at decomposed matrices, the embeddings and the logits."""
        parts = components.parts
        cuts = (
            *self.embeddings("embed.matrix" not in parts),
            *self.output(tokens, "output.matrix" not in parts),
            *self.parts(components),
            *self.norms(),
        )
        return Oracle(self.hf, cuts, components.importance, {p.site: p.ids for p in components}, seen)
