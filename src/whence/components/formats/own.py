"""whence's own format: one folder a set (`results.store`: JSON and safetensors, never pickle).

    meta      {type, layers: [{layer, reads, site, activation: {kind, k, relu}}]}        one entry a dictionary
    tensors   <n>.W_enc  <n>.b_enc  <n>.W_dec  <n>.b_dec  [<n>.W_skip  <n>.threshold]    n counts the entries

A cross-layer transcoder is one entry with `layers` in place of `layer` and a list of activations; its tensors end in
the layer, as `0.W_enc.3`. Files from before sites, skips and thresholds lack them, and keep the encoders and biases of
a cross-layer transcoder stacked, layers first. A file may hold 16-bit numbers. Rows are read when they are asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from whence.components.formats.hints import Hints
from whence.components.formats.tensors import TensorFile
from whence.components.lazy import LazyRows, Matrix, whole
from whence.errors import FileFormatError
from whence.results import manifest, store

_PARTS = ("W_enc", "b_enc", "W_dec", "b_dec")


def recognises(path: Path) -> bool:
    """Whether a whence result lies there, of whatever kind."""
    return (path / manifest.NAME).is_file()


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a folder.

    Raises:
        FileFormatError: Not a folder of dictionaries in whence's format, or one that is damaged.
    """
    found = store.locate(path, kind="dictionary")
    file = TensorFile(found.file)
    try:
        kind, entries = found.meta["type"], found.meta["layers"]
        if not entries:
            raise ValueError("no dictionary is listed")
        return [_dictionary(kind, entry, file, n) for n, entry in enumerate(entries)]
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        raise FileFormatError(f"{path} does not describe a set of dictionaries: {wrong!r}. Save it again.") from wrong


def save(path: Path, kind: str, dictionaries: Sequence[Dictionary], dtype: torch.dtype | None) -> Path:
    """The folder written."""
    meta = {"type": kind, "layers": [_entry(one) for one in dictionaries]}
    tensors = {f"{n}.{name}": tensor for n, one in enumerate(dictionaries) for name, tensor in _tensors(one).items()}
    return store.write(
        path, "dictionary", meta, {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}
    )


# ------------------------------------------------------------ writing
def _entry(dictionary: Dictionary) -> dict[str, Any]:
    activations = [_described(dictionary.encoder_of(layer).activation) for layer in dictionary.layers]
    sites = {"reads": dictionary.reads, "site": dictionary.writes}
    if isinstance(dictionary, CrossLayerTranscoder):
        return {"layers": list(dictionary.layers), "activation": activations, **sites}
    return {"layer": dictionary.layer, "activation": activations[0], **sites}


def _described(activation: Activation) -> dict[str, Any]:
    return {"kind": activation.kind, "k": activation.k, "relu": activation.relu}


def _tensors(dictionary: Dictionary) -> dict[str, Tensor]:
    found = {name: getattr(dictionary, name, None) for name in (*_PARTS, "W_skip")}
    found["threshold"] = tuple(dictionary.encoder_of(layer).activation.threshold for layer in dictionary.layers)
    if not isinstance(dictionary, CrossLayerTranscoder):
        found["threshold"] = found["threshold"][0]
        return {name: whole(part) for name, part in found.items() if part is not None}
    return {
        f"{name}.{layer}": whole(part)
        for name, parts in found.items()
        for layer, part in zip(dictionary.layers, parts or (), strict=parts is not None)
        if part is not None
    }


# ------------------------------------------------------------ reading
def _part(file: TensorFile, name: str) -> Matrix:
    """A matrix stays in the file, a vector is read."""
    return file.matrix(name) if name.split(".")[1].startswith("W") else file.vector(name)


def _dictionary(kind: str, entry: dict[str, Any], file: TensorFile, n: int) -> Dictionary:
    if kind == "cross_layer_transcoder":
        return _cross_layer(entry, file, n) if "layers" in entry else _stacked(entry, file, n)
    activation = Activation(**entry["activation"], threshold=file.optional(f"{n}.threshold"))
    shared: dict[str, Any] = {name: _part(file, f"{n}.{name}") for name in _PARTS}
    shared |= {"layer": entry["layer"], "activation": activation}
    if kind == "sae":
        return SAE(**shared, site=entry["site"])
    if kind == "transcoder":
        reads = entry.get("reads", "mlp_in")
        return Transcoder(**shared, W_skip=file.optional(f"{n}.W_skip"), reads=reads, writes=entry["site"])
    raise ValueError(f"a dictionary of type {kind!r}; known are transcoder, cross_layer_transcoder, sae")


def _cross_layer(entry: dict[str, Any], file: TensorFile, n: int) -> CrossLayerTranscoder:
    layers = tuple(entry["layers"])
    parts: dict[str, Any] = {name: tuple(_part(file, f"{n}.{name}.{layer}") for layer in layers) for name in _PARTS}
    if any(f"{n}.W_skip.{layer}" in file.names for layer in layers):
        parts["W_skip"] = tuple(file.vector(f"{n}.W_skip.{layer}") for layer in layers)
    activation = tuple(
        Activation(**described, threshold=file.optional(f"{n}.threshold.{layer}"))
        for layer, described in zip(layers, entry["activation"], strict=True)
    )
    return CrossLayerTranscoder(
        **parts, activation=activation, layers=layers, reads=entry["reads"], writes=entry["site"]
    )


def _stacked(entry: dict[str, Any], file: TensorFile, n: int) -> CrossLayerTranscoder:
    """As files kept it before layers could differ in width."""
    biases = [file.vector(f"{n}.{name}") for name in ("b_enc", "b_dec")]
    layers = range(len(biases[0]))
    return CrossLayerTranscoder(
        W_enc=tuple(LazyRows(file.file, f"{n}.W_enc", before=(layer,)) for layer in layers),
        b_enc=tuple(biases[0]),
        W_dec=tuple(LazyRows(file.file, f"{n}.W_dec.{layer}") for layer in layers),
        b_dec=tuple(biases[1]),
        activation=Activation(**entry["activation"]),
    )
