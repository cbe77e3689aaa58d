"""circuit-tracer: transcoders of every layer, or a cross-layer transcoder, with `config.yaml`.

    layer_<i>.safetensors     W_enc [f, d]  W_dec [f, d]  b_enc  b_dec  [activation_function.threshold]
                              [W_skip: x @ W_skip.T]
    W_enc_<i>.safetensors     W_enc_<i> [f, d]  b_enc_<i>  b_dec_<i>  [threshold_<i>]  [W_skip_<i>: x @ W_skip_<i>]
    W_dec_<i>.safetensors     W_dec_<i> [f, layers from i on, d]

    config.yaml   model_kind: transcoder_set | cross_layer_transcoder   feature_input_hook   feature_output_hook
                  [activation: relu | topk   k]   [transcoders: a reference for each layer, also to Gemma Scope files]

A threshold says jumprelu; this format's jumprelu and topk keep what they keep whatever its sign.
"""

import re
from pathlib import Path
from typing import Any

from whence.components.activation import Activation
from whence.components.dictionaries import CrossLayerTranscoder, Dictionary
from whence.components.formats import gemma_scope
from whence.components.formats.hints import Hints
from whence.components.formats.hooks import site_of_hook
from whence.components.formats.hub import resolve
from whence.components.formats.parts import Parts, skips
from whence.components.formats.tensors import TensorFile
from whence.components.sites import INPUTS, OUTPUTS, ReadSite
from whence.errors import FileFormatError

_CONFIG = "config.yaml"
_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_ENCODER = re.compile(r"W_enc_(\d+)\.safetensors")


def recognises(path: Path) -> bool:
    """Whether its config or its files' names say so."""
    if (path / _CONFIG).is_file():
        return "model_kind" in _config(path)
    return path.is_dir() and bool(_numbered(path, _LAYER) or _numbered(path, _ENCODER))


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a folder.

    Raises:
        FileFormatError: A config that is missing, or whose kind, hooks or activation are not known.
    """
    config = _config(path)
    reads, writes = _site(path, config, "feature_input_hook"), _site(path, config, "feature_output_hook")
    if config.get("model_kind") == "cross_layer_transcoder":
        return [_cross_layer(path, config, reads, writes)]
    if config.get("model_kind") != "transcoder_set":
        raise FileFormatError(
            f"{path / _CONFIG}: model_kind {config.get('model_kind')!r} is not known. Known: transcoder_set, "
            "cross_layer_transcoder."
        )
    files = _listed(config) if config.get("transcoders") else _numbered(path, _LAYER)
    return [_one_layer(file, config).placed(layer, reads, writes) for layer, file in files.items()]


def _config(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load((path / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileFormatError(
            f"{path} has no {_CONFIG}, so nothing says where its transcoders read and write. Add one with model_kind, "
            "feature_input_hook and feature_output_hook."
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FileFormatError(f"{path / _CONFIG} cannot be read as YAML: {error}.") from error
    return found if isinstance(found, dict) else {}


def _site(path: Path, config: dict[str, Any], name: str) -> ReadSite:
    if not isinstance(config.get(name), str):
        raise FileFormatError(f"{path / _CONFIG} does not say its {name}.")
    return site_of_hook(config[name])


def _numbered(path: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    found = [(pattern.fullmatch(file.name), file) for file in path.glob("*.safetensors")]
    return dict(sorted((int(match[1]), file) for match, file in found if match))


def _listed(config: dict[str, Any]) -> dict[int, Path]:
    """One reference a layer, from layer 0 on."""
    return {layer: resolve(reference).root for layer, reference in enumerate(config["transcoders"])}


def _one_layer(file: Path, config: dict[str, Any]) -> Parts:
    if file.suffix == ".npz" or gemma_scope.is_second(file):
        return gemma_scope.read_parts(file)
    stored = TensorFile(file)
    return Parts(
        W_enc=stored.matrix("W_enc"),
        b_enc=stored.vector("b_enc"),
        W_dec=stored.matrix("W_dec"),
        b_dec=stored.vector("b_dec"),
        activation=_activation(stored, "activation_function.threshold", config),
        skip=stored.optional("W_skip"),
    )


def _activation(stored: TensorFile, name: str, config: dict[str, Any]) -> Activation:
    threshold = stored.optional(name)
    if threshold is not None:
        return Activation("jumprelu", threshold=threshold.flatten() if threshold.ndim else threshold, relu=False)
    if config.get("activation", "relu") not in ("relu", "topk", "jump_relu", "jumprelu"):
        raise FileFormatError(f"{stored.file}: activation {config['activation']!r} is not known. Known: relu, topk.")
    if config.get("activation") != "topk":
        return Activation("relu")
    if not isinstance(config.get("k"), int):
        raise FileFormatError(f"{stored.file}: the config says topk and not its k.")
    return Activation("topk", k=config["k"], relu=False)


def _cross_layer(path: Path, config: dict[str, Any], reads: ReadSite, writes: ReadSite) -> CrossLayerTranscoder:
    encoders = {layer: TensorFile(file) for layer, file in _numbered(path, _ENCODER).items()}
    if not encoders:
        raise FileFormatError(f"{path} holds no W_enc_<layer>.safetensors. Download the whole folder.")
    if reads not in INPUTS or writes not in OUTPUTS:
        raise FileFormatError(f"{path / _CONFIG}: no cross-layer transcoder goes from {reads} to {writes}.")
    stored = [file.optional(f"W_skip_{layer}") for layer, file in encoders.items()]
    return CrossLayerTranscoder(
        W_enc=tuple(file.matrix(f"W_enc_{layer}") for layer, file in encoders.items()),
        b_enc=tuple(file.vector(f"b_enc_{layer}") for layer, file in encoders.items()),
        W_dec=tuple(TensorFile(path / f"W_dec_{layer}.safetensors").matrix(f"W_dec_{layer}") for layer in encoders),
        b_dec=tuple(file.vector(f"b_dec_{layer}") for layer, file in encoders.items()),
        activation=tuple(_activation(file, f"threshold_{layer}", config) for layer, file in encoders.items()),
        layers=tuple(encoders),
        W_skip=skips([None if skip is None else skip.T for skip in stored]),
        reads=reads,
        writes=writes,
    )
