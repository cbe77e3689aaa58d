"""circuit.py's model and autoencoders as feature-circuits wants them: in nnsight, by its own classes.

The peer's checkout must be importable before an autoencoder is asked for.
"""

import importlib
from pathlib import Path
from typing import Any

import torch

from circuit_model import Setup, load_dictionaries


def language_model(folder: Path, setup: Setup) -> Any:
    """The saved model, which must give the logits that were saved with it."""
    from nnsight import LanguageModel

    model = LanguageModel(str(folder / "model"), tokenizer=tokenizer(), device_map="cpu", dispatch=True)
    with torch.no_grad():
        logits = model._model(setup.clean).logits[:, -1]
    torch.testing.assert_close(logits, setup.logits, atol=1e-4, rtol=1e-4)
    return model


def tokenizer() -> Any:
    """What nnsight asks of a tokenizer where prompts are ids of equal length."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", padding_side="left")


def autoencoders(model: Any, folder: Path, setup: Setup) -> dict[Any, Any]:
    """The peer's autoencoder of every site, by the peer's name of the site."""
    from dictionary_learning import AutoEncoder

    submodule = importlib.import_module("loading_utils").Submodule
    found: dict[Any, Any] = {}
    for site, tensors in load_dictionaries(folder, setup.shape).items():
        made = AutoEncoder(setup.shape.d_model, setup.shape.features)
        made.load_state_dict(tensors)
        is_tuple = site.startswith(("attn", "resid"))
        found[submodule(site, module_of(model, site), is_tuple=is_tuple)] = made
    return found


def module_of(model: Any, site: str) -> Any:
    """The module whose output a site is."""
    kind, _, layer = site.partition("_")
    if kind == "embed":
        return model.gpt_neox.embed_in
    block = model.gpt_neox.layers[int(layer)]
    return block if kind == "resid" else block.attention if kind == "attn" else block.mlp
