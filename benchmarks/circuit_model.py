"""The model, dictionaries and pairs of both sides of circuit.py: a folder, so that weights are alike to the last bit.

Everything is random: a GPT-NeoX (attention beside the MLP), a ReLU autoencoder of tied directions at the embeddings and
at what every attention, MLP and block gives, and pairs of prompts that differ at their second position. The
autoencoders' biases leave a set share of features active. The thresholds that keep so many nodes a site come from
attribution patching in plain torch, and lie midway between two effects, so that rounding on either side cannot keep
another node.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_effects import attribution, run, threshold

OTHER = 1  # the position where the prompts of a pair differ


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, of its dictionaries and of the pairs.

    Args:
        kept: how many (example, position, feature) triples a site are kept on average, one threshold each.
        active: the share of features that are active.
    """

    layers: int
    d_model: int
    heads: int
    features: int
    vocab: int
    kept: tuple[int, ...]
    length: int = 8
    pairs: int = 8
    active: float = 0.05

    @property
    def sites(self) -> list[str]:
        """Their names, in forward order."""
        return ["embed", *(f"{kind}_{i}" for i in range(self.layers) for kind in ("attn", "mlp", "resid"))]


SMALL = Shape(4, 128, 4, features=1024, vocab=1024, kept=(8, 32, 128))
PYTHIA = Shape(6, 512, 8, features=8192, vocab=50304, kept=(8, 32))  # 128 would cost the peer some 14 GB
TINY = Shape(2, 16, 2, features=40, vocab=61, kept=(4, 8), length=4, pairs=3, active=0.2)
SHAPES = {"small": SMALL, "pythia-70m": PYTHIA, "tiny": TINY}


@dataclass(frozen=True)
class Setup:
    """Token ids [pair, position] and answers [pair] of both halves, clean logits of the last position, thresholds."""

    shape: Shape
    clean: Tensor
    patch: Tensor
    clean_answers: Tensor
    patch_answers: Tensor
    logits: Tensor
    thresholds: dict[int, float]

    def metric(self, logits: Tensor) -> Tensor:
        """Logit of the patched prompt's answer less the clean one's, at the last position, [pair]."""
        rows = torch.arange(len(logits))
        return logits[rows, -1, self.patch_answers] - logits[rows, -1, self.clean_answers]


def neox(shape: Shape) -> Any:
    """A random GPT-NeoX, gains moved off 1 and biases off 0."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        hidden_size=shape.d_model, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        intermediate_size=4 * shape.d_model, vocab_size=shape.vocab, max_position_embeddings=512,
        initializer_range=shape.d_model**-0.5, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval().requires_grad_(requires_grad=False)
    for parameter in (p for p in model.parameters() if p.ndim == 1):
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def autoencoder(shape: Shape, x: Tensor) -> dict[str, Tensor]:
    """A random autoencoder's tensors for a site that gives x [pair, position, d_model] on the clean prompts."""
    directions = torch.nn.functional.normalize(torch.randn(shape.features, shape.d_model), dim=1)
    centre = x.mean((0, 1))
    reading = (x - centre) @ directions.T
    bias = 0.1 * reading.std() * torch.randn(shape.features)
    cut = in_a_gap(reading + bias, shape.active)
    return {"bias": centre, "encoder.weight": directions, "encoder.bias": bias - cut, "decoder.weight": directions.T}


def in_a_gap(readings: Tensor, share: float) -> float:
    """What about this share of readings exceeds, in the widest gap near there: rounding must turn no feature on."""
    ranked = readings.flatten().double().sort(descending=True).values
    near = ranked[round(0.95 * share * len(ranked)) : round(1.05 * share * len(ranked))]
    widest = int((near[:-1] - near[1:]).argmax())
    return float(near[widest : widest + 2].mean())


def save_setup(shape: Shape, folder: Path) -> tuple[Setup, dict[str, Tensor]]:
    """Write the model, an autoencoder a site, and the pairs; the pairs come back, and the effects of every site."""
    from safetensors.torch import save_file
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    model = neox(shape)
    model.save_pretrained(folder / "model")
    clean = torch.randint(1, shape.vocab, (shape.pairs, shape.length))
    patch = clean.clone()
    patch[:, OTHER] = torch.randint(1, shape.vocab, (shape.pairs,))
    answers = torch.randint(1, shape.vocab, (2, shape.pairs))
    given: dict[str, Tensor] = {}
    logits = run(model, clean, lambda site, x: given.update({site: x}))[:, -1].contiguous()
    setup = Setup(shape, clean, patch, answers[0], answers[1], logits, {})
    saes = {site: autoencoder(shape, x) for site, x in given.items()}
    (folder / "dictionaries").mkdir()
    for site, tensors in saes.items():
        stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(stored, folder / "dictionaries" / f"{site}.safetensors")
    effects = attribution(model, saes, (clean, patch), setup.metric)
    every = torch.cat([one.flatten() for one in effects.values()])
    setup.thresholds.update({kept: threshold(every, kept * len(shape.sites)) for kept in shape.kept})
    save_file({"logits": logits}, folder / "logits.safetensors")
    names = ("clean", "patch", "clean_answers", "patch_answers")
    asked = {name: getattr(setup, name).tolist() for name in names}
    asked |= {"shape": asdict(shape), "thresholds": list(setup.thresholds.items())}
    (folder / "pairs.json").write_text(json.dumps(asked))
    return setup, effects


def load_setup(folder: Path) -> Setup:
    """The pairs of a folder that `save_setup` wrote."""
    from safetensors.torch import load_file

    asked = json.loads((folder / "pairs.json").read_text())
    shape = Shape(**asked["shape"] | {"kept": tuple(asked["shape"]["kept"])})
    ids = [torch.tensor(asked[name]) for name in ("clean", "patch", "clean_answers", "patch_answers")]
    return Setup(shape, *ids, load_file(folder / "logits.safetensors")["logits"], dict(map(tuple, asked["thresholds"])))


def load_dictionaries(folder: Path, shape: Shape) -> dict[str, dict[str, Tensor]]:
    """Every site's autoencoder."""
    from safetensors.torch import load_file

    return {site: load_file(folder / "dictionaries" / f"{site}.safetensors") for site in shape.sites}
