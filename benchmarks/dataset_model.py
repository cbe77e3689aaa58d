"""The model, components, importances and tokens of both sides of dataset.py: a folder, so that numbers are alike.

Everything is random: a Llama whose every matrix is exactly the product of its components, W = (V U)ᵀ, so that a side
that leaves out what components miss computes the same model; importances that are above 0 for a set share of
(token, component) pairs, each pair by itself; and rows of tokens. Embedding and unembedding share one matrix.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PLACES = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.o_proj",
    "glu.gate": "mlp.gate_proj",
    "glu.up": "mlp.up_proj",
    "glu.down": "mlp.down_proj",
}  # where a Hugging Face Llama keeps the matrices of a block, in the order in which they are applied


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, of its components and of a batch.

    Args:
        components: how many each matrix has.
        density: the share of (token, component) pairs whose importance is not 0.
    """

    layers: int
    components: int
    density: float
    d_model: int = 128
    heads: int = 4
    hidden: int = 352
    vocab: int = 1000
    rows: int = 4
    length: int = 64

    @property
    def sites(self) -> list[str]:
        """Names of the matrices, in forward order."""
        return [f"{layer}.{name}" for layer in range(self.layers) for name in PLACES]

    @property
    def tokens(self) -> int:
        """Tokens of a batch."""
        return self.rows * self.length


TINY = Shape(2, 6, 0.3, d_model=16, heads=2, hidden=24, vocab=31, rows=2, length=5)
SHAPES = {
    f"C{components} {name}": Shape(4, components, density)
    for components in (128, 256)
    for name, density in (("sparse", 0.04), ("dense", 1.0))
} | {"tiny": TINY}


@dataclass(frozen=True)
class Setup:
    """Token ids [row, pos], their logits, and by site V [in, component], U [component, out], importances."""

    shape: Shape
    ids: Tensor
    logits: Tensor
    V: dict[str, Tensor]
    U: dict[str, Tensor]
    importances: dict[str, Tensor]  # [row, pos, component]

    def check(self, logits: Tensor) -> None:
        """Refuse a side that computes another model."""
        apart = float((logits - self.logits).abs().max() / self.logits.abs().max())
        if apart > 1e-4:
            raise ValueError(f"logits are {apart:.1e} of the largest away from those of the saved model")


def llama(shape: Shape) -> Any:
    """A random Llama, gains moved off 1."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.d_model, num_hidden_layers=shape.layers, bos_token_id=0,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, intermediate_size=shape.hidden,
        max_position_embeddings=shape.length, rms_norm_eps=1e-6, tie_word_embeddings=True, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
    model.requires_grad_(requires_grad=False)
    model.model.embed_tokens.weight.copy_(0.5 * torch.randn(shape.vocab, shape.d_model))
    for parameter in (p for p in model.parameters() if p.ndim == 1):
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def decompose(model: Any, shape: Shape) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random V and U of every matrix, whose product becomes its weight."""
    V: dict[str, Tensor] = {}
    U: dict[str, Tensor] = {}
    for site in shape.sites:
        layer, _, name = site.partition(".")
        linear = model.get_submodule(f"model.layers.{layer}.{PLACES[name]}")
        out, into = linear.weight.shape
        V[site] = torch.randn(into, shape.components) / into**0.5
        U[site] = torch.randn(shape.components, out) / shape.components**0.5
        linear.weight.copy_((V[site] @ U[site]).T)
    return V, U


def save_setup(shape: Shape, folder: Path) -> Setup:
    """Write everything; it comes back."""
    from safetensors.torch import save_file
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    model = llama(shape)
    V, U = decompose(model, shape)
    model.save_pretrained(folder / "model")
    ids = torch.randint(1, shape.vocab, (shape.rows, shape.length))
    size = (shape.rows, shape.length, shape.components)
    importances = {site: (1 - torch.rand(size)) * (torch.rand(size) < shape.density) for site in shape.sites}
    logits = model(input_ids=ids, use_cache=False).logits
    setup = Setup(shape, ids, logits, V, U, importances)
    named = {f"{name} {site}": one for name in ("V", "U", "importances") for site, one in getattr(setup, name).items()}
    save_file(named | {"ids": ids, "logits": logits}, folder / "components.safetensors")
    (folder / "shape.json").write_text(json.dumps(asdict(shape)))
    return setup


def load_setup(folder: Path) -> Setup:
    """What `save_setup` wrote into a folder."""
    from safetensors.torch import load_file

    shape = Shape(**json.loads((folder / "shape.json").read_text()))
    found = load_file(folder / "components.safetensors")
    V, U, importances = ({site: found[f"{name} {site}"] for site in shape.sites} for name in ("V", "U", "importances"))
    return Setup(shape, found["ids"], found["logits"], V, U, importances)
