"""SAELens: a folder a dictionary, with `cfg.json` and `sae_weights.safetensors`.

    W_enc [d, f]  W_dec [f, d]  b_enc  b_dec  [threshold | r_mag b_gate b_mag]  [W_skip: x @ W_skip.T]  [scaling_factor]

Architectures: standard, jumprelu, topk, batchtopk, gated, matryoshka..., and transcoders with or without jumprelu and
skip. What the encoder does to its input (`apply_b_dec_to_input`) and to its features (`rescale_acts_by_decoder_norm`,
`scaling_factor`) is folded into the weights. Inputs that are normalised as the model runs are refused.
"""

from pathlib import Path
from typing import Any

from whence.components.activation import Activation
from whence.components.dictionaries import Dictionary
from whence.components.formats.hints import Hints
from whence.components.formats.hooks import place_of_hook
from whence.components.formats.parts import Parts, lengths, scale_rows
from whence.components.formats.tensors import TensorFile, read_json
from whence.components.gated import open_gate
from whence.errors import FileFormatError

_WEIGHTS, _CONFIG = "sae_weights.safetensors", "cfg.json"
_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_ARCHITECTURES = ("standard", "jumprelu", "topk", "batchtopk", "gated", *_TRANSCODERS)


def recognises(path: Path) -> bool:
    """Whether there is such a pair of files, at any depth."""
    return bool(_folders(path))


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a folder and those below it.

    Raises:
        FileFormatError: An architecture, normalisation or hook that is not known.
    """
    return [_dictionary(folder) for folder in _folders(path)]


def _folders(path: Path) -> list[Path]:
    return [file.parent for file in sorted(path.rglob(_WEIGHTS)) if file.with_name(_CONFIG).is_file()]


def _dictionary(folder: Path) -> Dictionary:
    file, stored = folder / _CONFIG, TensorFile(folder / _WEIGHTS)
    config = read_json(file)
    config |= config.get("metadata") or {}
    architecture = config.get("architecture", "standard")
    _refuse(file, config, architecture)
    hook, out = config.get("hook_name"), config.get("hook_name_out")
    if not isinstance(hook, str) or (architecture in _TRANSCODERS and not isinstance(out, str)):
        raise FileFormatError(f"{file} does not say its hook_name (and hook_name_out of a transcoder).")
    layer, reads = place_of_hook(hook)
    below, writes = place_of_hook(out) if architecture in _TRANSCODERS and out else (layer, reads)
    if below != layer:
        raise FileFormatError(f"{file} reads layer {layer} and writes layer {below}; a transcoder stands for one MLP.")
    return _parts(file, config, architecture, stored).placed(layer, reads, writes)


def _refuse(file: Path, config: dict[str, Any], architecture: str) -> None:
    if architecture not in _ARCHITECTURES and not architecture.startswith("matryoshka"):
        raise FileFormatError(
            f"{file}: architecture {architecture!r} is not known. Known: {', '.join(_ARCHITECTURES)}."
        )
    normalisation = config.get("normalize_activations") or "none"
    if normalisation not in ("none", "expected_average_only_in"):  # the latter was folded in when the file was written
        raise FileFormatError(
            f"{file}: its inputs are normalised ({normalisation}) each time it runs, which makes features no linear "
            "function of the site. Use one with normalize_activations 'none'."
        )
    if config.get("hook_head_index") is not None:
        raise FileFormatError(f"{file}: it reads head {config['hook_head_index']} alone; whence reads all of a site.")


def _parts(file: Path, config: dict[str, Any], architecture: str, stored: TensorFile) -> Parts:
    W_enc, b_dec = stored.matrix("W_enc", transposed=True), stored.vector("b_dec")
    if architecture == "gated":
        bias = stored.vector("b_mag")
        scale, activation = open_gate(stored.vector("b_gate"), bias, stored.vector("r_mag"))
        parts = Parts(scale_rows(W_enc, scale), bias, stored.matrix("W_dec"), b_dec, activation)
    else:
        activation = _activation(file, config, architecture, stored)
        skip = stored.optional("W_skip")
        parts = Parts(W_enc, stored.vector("b_enc"), stored.matrix("W_dec"), b_dec, activation, skip)
    return _folded(parts, config, architecture, stored)


def _folded(parts: Parts, config: dict[str, Any], architecture: str, stored: TensorFile) -> Parts:
    """What is done around encoder and decoder, put into them."""
    if config.get("apply_b_dec_to_input", architecture not in _TRANSCODERS):
        parts = parts.reading_less(parts.b_dec)
    if config.get("rescale_acts_by_decoder_norm"):
        parts = parts.scaled(lengths(parts.W_dec))
    factor = stored.optional("scaling_factor")
    if factor is None:
        return parts
    return Parts(parts.W_enc, parts.b_enc, scale_rows(parts.W_dec, factor), parts.b_dec, parts.activation, parts.skip)


def _activation(file: Path, config: dict[str, Any], architecture: str, stored: TensorFile) -> Activation:
    threshold = stored.optional("threshold")
    threshold = stored.optional("topk_threshold") if threshold is None else threshold
    if architecture == "batchtopk" or architecture.startswith("matryoshka"):
        return Activation("relu") if threshold is None else Activation("batchtopk", threshold=threshold)
    if architecture.startswith("jumprelu"):
        return Activation("jumprelu", threshold=stored.vector("threshold"))
    said = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    k = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k")
    if architecture == "topk" or said == "topk":
        if not isinstance(k, int):
            raise FileFormatError(f"{file}: a topk that does not say its k.")
        return Activation("topk", k=k)
    if said != "relu":
        raise FileFormatError(f"{file}: activation {said!r} is not known. Known: relu, topk.")
    return Activation("relu")
