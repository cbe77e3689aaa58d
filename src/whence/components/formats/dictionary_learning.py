"""dictionary_learning: a folder a dictionary, with `ae.pt` (a state dict) and usually `config.json`.

    AutoEncoder            bias  encoder.weight [f, d]  encoder.bias  decoder.weight [d, f]
    GatedAutoEncoder       decoder_bias  encoder.weight  r_mag  gate_bias  mag_bias  decoder.weight
    AutoEncoderTopK        b_dec  encoder.weight  encoder.bias  decoder.weight  k  [threshold]
    BatchTopKSAE           the same; features pass where they exceed `threshold`
    MatryoshkaBatchTopK    W_enc [d, f]  b_enc  W_dec [f, d]  b_dec  threshold  group_sizes
    JumpReluAutoEncoder    W_enc [d, f]  b_enc  W_dec [f, d]  b_dec  threshold           reads x as it is

All but the last read x less the decoder's bias. Which one it is shows in the tensors, and where two share them in the
config's `dict_class`. The layer and site are the config's, or else as in `hints.py`. Tensors are read whole.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import Dictionary
from whence.components.formats.gemma_scope import known_site
from whence.components.formats.hints import Hints
from whence.components.formats.parts import Parts, scale_rows
from whence.components.formats.tensors import read_json
from whence.components.gated import open_gate
from whence.components.lazy import widened
from whence.components.sites import Site
from whence.errors import FileFormatError

_WEIGHTS, _CONFIG = "ae.pt", "config.json"
_SUBMODULE = re.compile(r"(resid_pre|resid_post|resid_out|resid|attn_out|attn|mlp_out|mlp)_layer_?(\d+)")
_SITES: dict[str, Site] = {
    "resid_pre": "resid_pre",
    **dict.fromkeys(("resid_post", "resid_out", "resid"), "resid_post"),
    **dict.fromkeys(("attn_out", "attn"), "attn_out"),
    **dict.fromkeys(("mlp_out", "mlp"), "mlp_out"),
}


def recognises(path: Path) -> bool:
    """Whether there is such a file, at any depth."""
    return bool(_files(path))


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a folder and those below it.

    Raises:
        FileFormatError: Tensors that are no known autoencoder's, or no word on where it belongs.
    """
    return [_dictionary(file, hints) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() and path.name == _WEIGHTS else sorted(path.rglob(_WEIGHTS))


def _dictionary(file: Path, hints: Hints) -> Dictionary:
    config = file.with_name(_CONFIG)
    trainer = read_json(config).get("trainer", {}) if config.is_file() else {}
    layer, site = _place(file, trainer, hints)
    return _parts(file, read_state(file), str(trainer.get("dict_class", ""))).placed(layer, site, site)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict.

    Raises:
        FileFormatError: Not one, or a file that holds more than tensors.
    """
    try:
        # Tensors only: with `weights_only` torch's unpickler builds nothing else and calls nothing that a file names.
        found = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise FileFormatError(f"{file} is no state dict of tensors alone ({type(error).__name__}).") from error
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise FileFormatError(f"{file} holds more than named tensors, so it is no state dict of an autoencoder.")
    return {name: widened(one) if one.is_floating_point() else one for name, one in found.items()}


def _place(file: Path, trainer: dict[str, Any], hints: Hints) -> tuple[int, Site]:
    said = (*hints.path.parts, *file.relative_to(hints.root).parts, str(trainer.get("submodule_name") or ""))
    found = [match for part in said for match in _SUBMODULE.finditer(part)]
    layer, site = hints.layer, hints.site
    layer = trainer.get("layer") if layer is None else layer
    if found:
        layer = int(found[-1][2]) if layer is None else layer
        site = _SITES[found[-1][1]] if site is None else site
    layer = hints.layer_of(file) if not isinstance(layer, int) else layer
    return layer, known_site(hints.site_of(file) if site is None else site)


def _parts(file: Path, state: dict[str, Tensor], dict_class: str) -> Parts:
    names = frozenset(state)
    if {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"} <= names:
        grouped = "group_sizes" in names or "k" in names
        activation = Activation("batchtopk" if grouped else "jumprelu", threshold=state["threshold"])
        parts = Parts(state["W_enc"].T, state["b_enc"], state["W_dec"], state["b_dec"], activation)
        return parts.reading_less(parts.b_dec) if grouped else parts
    if {"encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"} <= names:
        scale, activation = open_gate(state["gate_bias"], state["mag_bias"], state["r_mag"])
        weight, bias = scale_rows(state["encoder.weight"], scale), state["mag_bias"]
        centre = state["decoder_bias"]
    elif {"encoder.weight", "encoder.bias", "decoder.weight"} <= names and names & {"bias", "b_dec"}:
        weight, bias, activation = state["encoder.weight"], state["encoder.bias"], _activation(file, state, dict_class)
        centre = state["bias" if "bias" in names else "b_dec"]
    else:
        raise FileFormatError(f"{file} holds {', '.join(sorted(names))}: no autoencoder that is known.")
    assert isinstance(weight, Tensor)
    return Parts(weight, bias, state["decoder.weight"].T, centre, activation).reading_less(centre)


def _activation(file: Path, state: dict[str, Tensor], dict_class: str) -> Activation:
    if "k" not in state:
        return Activation("relu")
    if "BatchTopK" in dict_class:
        return Activation("batchtopk", threshold=state["threshold"])
    if "threshold" in state and "TopK" not in dict_class:
        raise FileFormatError(
            f"{file} may be a top-k or a batch-top-k autoencoder, which keep the same tensors. Put the {_CONFIG} it "
            "was trained with beside it: its trainer's dict_class tells."
        )
    return Activation("topk", k=int(state["k"]))
