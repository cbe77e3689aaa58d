"""The sets of dictionaries that the demo ships, and how one is fitted to a model: record, fit, name the weights.

Cost of a set of four layers and 512 features: about 80 CPU seconds and, while it fits, two gigabytes of memory.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from whence.components.sets import DictionarySet
from whence.components.sites import Site
from whence.demo.fit import DictionaryRecipe, Fitted, fit
from whence.demo.sites import record
from whence.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


FULL_DICTIONARY = DictionaryRecipe()


@dataclass(frozen=True, slots=True)
class SetRecipe:
    """One set: its folder's name, the site it rebuilds (None: the MLP's output from its input), and how it is made."""

    name: str
    site: Site | None = None
    across_layers: bool = False
    dictionary: DictionaryRecipe = FULL_DICTIONARY


FULL_SETS = (
    SetRecipe("transcoders", dictionary=DictionaryRecipe(steps=1600)),
    SetRecipe("cross_layer_transcoder", across_layers=True),
    SetRecipe("sae_resid_post", "resid_post"),
    SetRecipe("sae_attn_out", "attn_out"),
    SetRecipe("sae_mlp_out", "mlp_out"),
)
# Few features and a penalty on their activations leave 5 to 10 % of the variance out, so that error nodes matter.
POOR = DictionaryRecipe(n_features=64, activation=Activation("relu"), l1=0.025, steps=600, documents=2000)
SMALL_SETS = (
    SetRecipe("transcoders", dictionary=DictionaryRecipe(n_features=256, steps=2000, documents=4000)),
    SetRecipe("poor_transcoders", dictionary=POOR),
)


def fit_set(
    recipe: SetRecipe,
    model: "LlamaForCausalLM",
    ids: Int[Tensor, "document pos"],
    seed: int,
    progress: Progress = silent,
) -> DictionarySet:
    """Return the dictionaries of every layer, fitted to what the model's sites say on these documents."""
    ids = ids[: recipe.dictionary.documents]
    writes = record(model, ids, recipe.site or "mlp_out")
    reads = writes if recipe.site else record(model, ids, "mlp_in")
    fitted = fit(
        reads,
        writes,
        recipe.dictionary,
        across_layers=recipe.across_layers,
        seed=seed,
        progress=lambda stage, done, total: progress(f"{recipe.name}: {stage}", done, total),
    )
    if recipe.across_layers:
        return DictionarySet((_cross_layer(fitted, recipe.dictionary.activation),))
    return DictionarySet(tuple(_one_layer(fitted, layer, recipe) for layer in range(len(fitted.W_enc))))


def _one_layer(fitted: Fitted, layer: int, recipe: SetRecipe) -> Dictionary:
    weights = fitted.W_enc[layer], fitted.b_enc[layer], fitted.W_dec[layer], fitted.b_dec[layer]
    activation = recipe.dictionary.activation
    return SAE(layer, *weights, activation, recipe.site) if recipe.site else Transcoder(layer, *weights, activation)


def _cross_layer(fitted: Fitted, activation: Activation) -> CrossLayerTranscoder:
    layers, n, _ = fitted.W_enc.shape
    by_target = [decoder.reshape(-1, n, decoder.shape[-1]) for decoder in fitted.W_dec]  # [source, feature, d_model]
    decoders = tuple(
        torch.stack([by_target[target][source] for target in range(source, layers)], 1) for source in range(layers)
    )
    return CrossLayerTranscoder(tuple(fitted.W_enc), tuple(fitted.b_enc), decoders, tuple(fitted.b_dec), activation)
