"""The model and the prompts that both sides of dla.py get: a folder, so that weights are the same to the last bit."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2 and of its batch."""

    n_layer: int
    n_head: int
    d_model: int
    d_mlp: int
    vocab: int
    batch: int
    length: int

    @property
    def heads_and_neurons(self) -> int:
        """How many units there are."""
        return self.n_layer * (self.n_head + self.d_mlp)


SMALL = Shape(n_layer=12, n_head=12, d_model=768, d_mlp=3072, vocab=50257, batch=8, length=64)
TINY = Shape(n_layer=2, n_head=2, d_model=16, d_mlp=32, vocab=61, batch=3, length=7)


@dataclass(frozen=True)
class Setup:
    """What is asked: prompts, and an answer and a foil for each."""

    ids: torch.Tensor
    answers: torch.Tensor
    foils: torch.Tensor


def save_model(shape: Shape, folder: Path) -> None:
    """Write a random GPT-2 and its prompts.

    Norms and biases are moved off 1 and 0, where a mistake in folding them would not show.
    """
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=shape.n_layer, n_head=shape.n_head, n_embd=shape.d_model, n_inner=shape.d_mlp, vocab_size=shape.vocab,
        n_positions=1024, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.ndim == 1):
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    ids = torch.randint(shape.vocab, (shape.batch, shape.length))
    pairs = torch.randperm(shape.vocab)[: 2 * shape.batch].view(2, shape.batch)
    prompts = {"ids": ids.tolist(), "answers": pairs[0].tolist(), "foils": pairs[1].tolist(), "shape": asdict(shape)}
    (folder / "prompts.json").write_text(json.dumps(prompts))


def load_setup(folder: str) -> Setup:
    """The prompts of a folder that `save_model` wrote."""
    prompts = json.loads(Path(folder, "prompts.json").read_text())
    return Setup(*(torch.tensor(prompts[name]) for name in ("ids", "answers", "foils")))
