"""How well dictionaries stand in for what they rebuild, on sentences that neither training nor fitting has drawn.

    FVU             Σ|y − ŷ|² / Σ|y − ȳ|²                     share of the variance missed
    L0              features active at a position, on average
    dead            share of features active at no position measured
    nats lost       loss with ŷ in the model − loss of the model
    loss recovered  (loss with ȳ − loss with ŷ) / (loss with ȳ − loss of the model)

ȳ is the mean over positions. Position 0 is left alone throughout. A share recovered divides by what the mean costs,
which is small where a layer hardly matters; read it beside the nats lost. Cost: a few forward passes a dictionary.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.sets import DictionarySet
from whence.demo.model import next_token_loss
from whence.demo.sites import Rebuild, rebuilder, record, replaced

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, slots=True)
class DictionaryScore:
    """One layer of a set, replaced alone; `layer` None is the whole set in place at once, with the means of the rest.

    `l0` and `dead` are of the features that read this layer. Losses are in nats.
    """

    name: str
    layer: int | None
    fvu: float
    l0: float
    dead: float
    nats_lost: float
    loss_recovered: float


@torch.no_grad()
def measure(
    name: str, dictionaries: DictionarySet, model: "LlamaForCausalLM", ids: Int[Tensor, "document pos"]
) -> list[DictionaryScore]:
    """Return one score a layer, then the score of all layers replaced together.

    Args:
        name: What the set is called in the report.
        dictionaries: A set that covers every layer of the model.
        model: The model they were fitted to.
        ids: Documents to measure on.
    """
    reads, writes = dictionaries.reads, dictionaries.writes
    x, y = record(model, ids, reads), record(model, ids, writes)
    mean, alone = y.mean(1), _standing_alone(dictionaries, x, y)
    base = next_token_loss(model(ids).logits, ids).item()

    def loss(rebuild: Rebuild, layers: tuple[int, ...]) -> float:
        with replaced(model, reads, writes, rebuild, layers):
            return next_token_loss(model(ids).logits, ids).item()

    def score(layer: int | None, layers: tuple[int, ...]) -> DictionaryScore:
        ours, means = loss(rebuilder(dictionaries), layers), loss(lambda i, old: mean[i].expand_as(old), layers)
        fvu, l0, dead = alone[:, list(layers)].mean(1).tolist()
        return DictionaryScore(name, layer, fvu, l0, dead, ours - base, (means - ours) / (means - base))

    layers = tuple(range(len(x)))
    return [score(layer, (layer,)) for layer in layers] + [score(None, layers)]


def _standing_alone(dictionaries: DictionarySet, x: Tensor, y: Tensor) -> Float[Tensor, "3 layer"]:
    """Return each layer's FVU, L0 and dead share, on what the untouched model's sites say."""
    through = rebuilder(dictionaries)
    missed = torch.stack([(through(layer, own) - y[layer]).pow(2).sum() for layer, own in enumerate(x)])
    encoders = [dictionaries[layer].encoder_of(layer) for layer in range(len(x))]
    active = torch.stack([encoder.encode(own) > 0 for encoder, own in zip(encoders, x, strict=True)])
    variance = (y - y.mean(1, keepdim=True)).pow(2).sum((1, 2))
    return torch.stack([missed / variance, active.float().sum(-1).mean(1), 1 - active.any(1).float().mean(-1)])
