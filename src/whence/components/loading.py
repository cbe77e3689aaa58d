"""Dictionaries in files: whence's own format, one folder a set (`results.store`: JSON and safetensors, never pickle).

    meta      {type, layers: [{layer, site, activation: {kind, k}}]}      one entry a dictionary
    tensors   <n>.W_enc  <n>.b_enc  <n>.W_dec  <n>.b_dec                  n counts the entries
              <n>.W_dec.<source> for a cross-layer transcoder

A file may hold 16-bit numbers; in memory they are always fp32. Cost: one read of the file. Knows no format but its own.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, DictionaryKind, Site, Transcoder
from whence.errors import FileFormatError
from whence.results import store


@dataclass(frozen=True, eq=False)
class DictionarySet(Collection[Dictionary]):
    """Dictionaries of one kind, at most one a layer, in the order of their layers; a cross-layer one is a set of one.

    Iterating gives the dictionaries; `[layer]` gives the one that reads that layer, wherever it stands in the set.

    Raises:
        ValueError: No dictionary, several kinds or sites, or two for one layer. Split them into sets.
    """

    dictionaries: tuple[Dictionary, ...]

    def __post_init__(self) -> None:
        found = sorted({f"{dictionary.kind} at {dictionary.writes}" for dictionary in self.dictionaries})
        if len(found) != 1:
            raise ValueError(f"a set holds dictionaries of one kind and site, got {found}. Make one set of each.")
        layers = self.layers
        if self.kind == "cross_layer_transcoder" and len(self.dictionaries) > 1:
            raise ValueError("a cross-layer transcoder covers all layers, so a set holds one of them.")
        if len(set(layers)) < len(layers):
            raise ValueError(f"a set holds one dictionary a layer, got layers {layers}.")
        ordered = tuple(sorted(self.dictionaries, key=_first_layer))
        object.__setattr__(self, "dictionaries", ordered)

    @property
    def kind(self) -> DictionaryKind:
        return self.dictionaries[0].kind

    @property
    def site(self) -> Site:
        """Where they write: the SAEs' site, "mlp_out" for both kinds of transcoder."""
        return self.dictionaries[0].writes

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers they read."""
        return tuple(layer for dictionary in self.dictionaries for layer in _layers(dictionary))

    def __getitem__(self, layer: int) -> Dictionary:
        for dictionary in self.dictionaries:
            if layer in _layers(dictionary):
                return dictionary
        raise IndexError(f"no {self.kind} reads layer {layer}; this set has layers {', '.join(map(str, self.layers))}.")

    def __iter__(self) -> Iterator[Dictionary]:
        return iter(self.dictionaries)

    def __len__(self) -> int:
        return len(self.dictionaries)

    def __contains__(self, dictionary: object) -> bool:
        return any(dictionary is mine for mine in self.dictionaries)


def save_dictionary(
    path: str | Path,
    dictionary: Dictionary | Sequence[Dictionary] | DictionarySet,
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The folder written: one dictionary, or those of several layers.

    Args:
        path: The folder to make; a whence result already there is replaced.
        dictionary: One, or several of one kind and site.
        dtype: Numbers in the file; torch.float16 halves it.

    Raises:
        ValueError: The dictionaries make no set (`DictionarySet`).
        FileFormatError: The path holds something that is not a whence result.

    Example:
        >>> save_dictionary("saes", load_dictionary("saes"), dtype=torch.float16)  # doctest: +SKIP
    """
    found = DictionarySet((dictionary,) if isinstance(dictionary, Dictionary) else tuple(dictionary))
    meta = {"type": found.kind, "layers": [_description(one) for one in found]}
    tensors = {f"{n}.{name}": tensor for n, one in enumerate(found) for name, tensor in _tensors(one).items()}
    return store.write(path, "dictionary", meta, {name: tensor.to(dtype) for name, tensor in tensors.items()})


def load_dictionary(path: str | Path) -> DictionarySet:
    """The dictionaries of a folder, in fp32 on the CPU.

    Raises:
        FileFormatError: Not a folder of dictionaries in whence's format, or one that is damaged.

    Example:
        >>> from whence.demo import dictionary_path
        >>> load_dictionary(dictionary_path("transcoders"))[2].n_features
        512
    """
    record = store.read(path, kind="dictionary")
    try:
        kind, entries = record.meta["type"], record.meta["layers"]
        return DictionarySet(tuple(_rebuilt(kind, entry, _named(record.tensors, n)) for n, entry in enumerate(entries)))
    except (KeyError, TypeError, ValueError) as wrong:
        raise FileFormatError(f"{path} does not describe a set of dictionaries: {wrong!r}. Save it again.") from wrong


def _layers(dictionary: Dictionary) -> tuple[int, ...]:
    if isinstance(dictionary, CrossLayerTranscoder):
        return tuple(range(dictionary.n_layers))
    return (dictionary.layer,)


def _first_layer(dictionary: Dictionary) -> int:
    return _layers(dictionary)[0]


def _description(dictionary: Dictionary) -> dict[str, Any]:
    activation = {"kind": dictionary.activation.kind, "k": dictionary.activation.k}
    return {"layer": _first_layer(dictionary), "site": dictionary.writes, "activation": activation}


def _tensors(dictionary: Dictionary) -> dict[str, Tensor]:
    shared = {name: getattr(dictionary, name) for name in ("W_enc", "b_enc", "b_dec")}
    if isinstance(dictionary, CrossLayerTranscoder):
        return shared | {f"W_dec.{source}": decoder for source, decoder in enumerate(dictionary.W_dec)}
    return shared | {"W_dec": dictionary.W_dec}


def _named(tensors: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    prefix = f"{n}."
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}


def _rebuilt(kind: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    activation = Activation(**entry["activation"])
    if kind == "cross_layer_transcoder":
        decoders = tuple(tensors[f"W_dec.{source}"] for source in range(len(tensors["W_enc"])))
        shared = {name: tensors[name] for name in ("W_enc", "b_enc", "b_dec")}
        return CrossLayerTranscoder(**shared, W_dec=decoders, activation=activation)
    if kind == "transcoder":
        return Transcoder(layer=entry["layer"], activation=activation, **tensors)
    if kind == "sae":
        return SAE(layer=entry["layer"], activation=activation, site=entry["site"], **tensors)
    raise ValueError(f"a dictionary of type {kind!r}; known are transcoder, cross_layer_transcoder, sae")
