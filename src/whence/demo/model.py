"""The demo's language model: a small Llama, trained from a seed on sentences made as it goes.

Cost: about 10,500 tokens a CPU second for the shipped size (eight million tokens, thirteen minutes of one core), 40,000
for the small one. The loss has a floor near 1.25 nats, since subjects, objects and adverbs are drawn at random. The
indirect object forms late, between 2,500 and 3,500 steps: cutting the steps loses it.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from whence.demo.tokenizer import BOS, CONTEXT, EOS, PAD, documents
from whence.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """Sizes of a model and of its training; `context` counts the tokens of one training document."""

    n_layers: int = 4
    d_model: int = 128
    d_mlp: int = 352
    steps: int = 4000
    batch: int = 32
    context: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.1


# Two layers this narrow learn every task but list repetition, of which they get about two thirds right.
SMALL_MODEL = ModelRecipe(n_layers=2, d_model=64, d_mlp=176, steps=3000, learning_rate=6e-3)


def train_model(
    recipe: ModelRecipe, vocab: dict[str, int], *, seed: int = 0, progress: Progress = silent
) -> "LlamaForCausalLM":
    """Return a trained model, its weights rounded to what a 16-bit file keeps, ready to evaluate."""
    torch.manual_seed(seed)
    model = _untrained(recipe, len(vocab))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        ids = documents(document_seed("train", seed, step), recipe.batch, recipe.context, vocab)
        loss = next_token_loss(model(ids).logits, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress(f"model: loss {loss.item():.3f}", step + 1, recipe.steps)
    return model.half().float().eval()


def document_seed(purpose: Literal["train", "fit", "measure", "corpus"], seed: int, step: int = 0) -> int:
    """Return the seed of one batch of documents, apart for each purpose: no measurement reuses training's."""
    return ("train", "fit", "measure", "corpus").index(purpose) * 10**12 + seed * 10**8 + step


def next_token_loss(logits: Float[Tensor, "document pos vocab"], ids: Int[Tensor, "document pos"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the next token, in nats."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _untrained(recipe: ModelRecipe, vocab_size: int) -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=recipe.d_model,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=recipe.d_mlp,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return LlamaForCausalLM(config)


def _schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate: a short warm-up, then half a cosine down to a twentieth."""
    return min(1.0, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
