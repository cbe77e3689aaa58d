"""Dictionaries of one kind, at most one a layer: what a job is given, whatever they are made of, addressed by layer.

Everything is computed from the rows that are asked for; what is handed out is float32 (float64 stays). Cost: that of
the dictionaries. Knows nothing of models: `check_fits` is told a model's sizes.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.changed import with_matrices
from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from whence.components.encoder import Active
from whence.components.lazy import Matrix, rows_of, whole, widened
from whence.components.sites import DictionaryKind, ReadSite, Site
from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class DictionarySet(Collection[Dictionary]):
    """Dictionaries of one kind, at most one a layer, in the order of their layers; a cross-layer one is a set of one.

    Iterating gives the dictionaries; `[layer]` gives the one that reads that layer, wherever it stands in the set.

    Args:
        dictionaries: One or more of one kind and of the same sites.
        source: Where they came from, for the record.
        revision: The version of the source.

    Raises:
        ValueError: No dictionary, several kinds or sites, or two for one layer. Split them into sets.

    Example:
        >>> import whence
        >>> from whence.demo import dictionary_path
        >>> found = whence.load_dictionary(dictionary_path("cross_layer_transcoder"))
        >>> found.layers, found.written(2), found.n_features(2)
        ((0, 1, 2, 3), (2, 3), 512)
    """

    dictionaries: tuple[Dictionary, ...]
    source: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        found = sorted({f"{one.kind} from {one.reads} to {one.writes}" for one in self.dictionaries})
        if len(found) != 1:
            raise ValueError(f"a set holds dictionaries of one kind and site, got {found}. Make one set of each.")
        if self.kind == "cross_layer_transcoder" and len(self.dictionaries) > 1:
            raise ValueError("a cross-layer transcoder covers all layers, so a set holds one of them.")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"a set holds one dictionary a layer, got layers {self.layers}. Make several sets.")
        widths = {one.bias_of(one.layers[0]).shape[0] for one in self.dictionaries}
        if len(widths) > 1:
            raise ValueError(f"a set reads vectors of one width, got {sorted(widths)}. Make one set of each.")
        object.__setattr__(self, "dictionaries", tuple(sorted(self.dictionaries, key=lambda one: one.layers[0])))

    # ------------------------------------------------------------ what it is
    @property
    def kind(self) -> DictionaryKind:
        return self.dictionaries[0].kind

    @property
    def reads(self) -> ReadSite:
        """Where they read."""
        return self.dictionaries[0].reads

    @property
    def writes(self) -> Site:
        """Where they write."""
        return self.dictionaries[0].writes

    @property
    def site(self) -> Site:
        """Where they write: the SAEs' site."""
        return self.writes

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers they read."""
        return tuple(layer for dictionary in self.dictionaries for layer in dictionary.layers)

    @property
    def d_model(self) -> int:
        """Width of what is read and written: the model's, but for SAEs of attn_z."""
        return self.dictionaries[0].bias_of(self.layers[0]).shape[0]

    def n_features(self, layer: int) -> int:
        """Features that read a layer."""
        return self[layer].encoder_of(layer).n_features

    def written(self, layer: int) -> tuple[int, ...]:
        """The layers that features of a layer write at."""
        return self[layer].written(layer)

    def node(self, layer: int, feature: int) -> Node:
        """The key of one feature, at the layer that it reads: `2.mlp.feature:7`."""
        found = self[layer]
        return found.node(layer, feature) if isinstance(found, CrossLayerTranscoder) else found.node(feature)

    # ------------------------------------------------------------ what it computes
    def active(self, layer: int, x: Float[Tensor, "pos d_model"]) -> Active:
        """The features of a layer that are not zero, from what its site says, by position, then feature.

        Example:
            >>> from whence.components.activation import Activation
            >>> one = Transcoder(0, torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), Activation("relu"))
            >>> DictionarySet((one,)).active(0, torch.tensor([[3.0, -1.0], [0.0, 2.0]])).feature
            tensor([0, 1])
        """
        return self[layer].encoder_of(layer).active(x)

    def encoder(self, layer: int, feature: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"]]:
        """Rows and biases of features: pre_activation = rows @ x + bias."""
        return self[layer].encoder_of(layer).rows(feature)

    def decoder(self, layer: int, feature: Int[Tensor, " k"], at: int) -> Float[Tensor, "k d_model"]:
        """What a unit of each feature of `layer` writes at layer `at`."""
        return rows_of(self[layer].decoder_of(layer, at), feature)

    def decoder_bias(self, layer: int) -> Float[Tensor, " d_model"]:
        """What is written at a layer whatever the features say."""
        return widened(self[layer].bias_of(layer))

    def skip(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """The linear map beside the features: output = ... + x @ skip.T; None where there is none."""
        skip = self[layer].skip_of(layer)
        return None if skip is None else widened(skip)

    # ------------------------------------------------------------ where it is
    def to(self, device: torch.device | str) -> "DictionarySet":
        """The same set, handing out rows on a device; what lies in files stays there."""
        return self._changed(lambda matrix: matrix.to(device))

    def in_memory(self) -> "DictionarySet":
        """The same set with every row read, for many prompts or where the files will go away."""
        return self._changed(lambda matrix: whole(matrix).clone())

    def _changed(self, change: Callable[[Matrix], Matrix]) -> "DictionarySet":
        return replace(self, dictionaries=tuple(with_matrices(one, change) for one in self.dictionaries))

    # ------------------------------------------------------------ what it says of itself
    def describe(self) -> dict[str, Any]:
        """What results record of it, in JSON's types; `fingerprint` tells apart sets that differ in biases or rows."""
        activations = [self[layer].encoder_of(layer).activation for layer in self.layers]
        return {
            "kind": self.kind,
            "reads": self.reads,
            "writes": self.writes,
            "layers": list(self.layers),
            "widths": [self.n_features(layer) for layer in self.layers],
            "d_model": self.d_model,
            "activation": sorted({one.kind if one.k is None else f"{one.kind} {one.k}" for one in activations}),
            "skip": any(self.skip(layer) is not None for layer in self.layers),
            "source": self.source,
            "revision": self.revision,
            "fingerprint": self._fingerprint(),
        }

    def check_fits(self, model_width: int, n_layers: int) -> None:
        """Refuse a model that these dictionaries are not for.

        Args:
            model_width: Width of the model's stream.
            n_layers: Number of its blocks.

        Raises:
            ValueError: A layer that the model lacks, or vectors of another width; an SAE of attn_z is not asked.
        """
        last = max(at for layer in self.layers for at in self.written(layer))
        if last >= n_layers:
            raise ValueError(f"the dictionary is for layer {last}; the model has layers 0 to {n_layers - 1}")
        n = self.n_features(self.layers[0])
        if self.writes != "attn_z" and self.d_model != model_width:
            raise ValueError(
                f"the dictionary reads vectors of width {self.d_model}; the model's stream has width {model_width} "
                f"(W_enc of layer {self.layers[0]} has shape {(n, self.d_model)}, and {(n, model_width)} is wanted)"
            )

    def _fingerprint(self) -> str:
        """Of every bias, threshold and skip and of two rows a layer: cheap where the rest lies in files."""
        found = hashlib.sha256()
        for layer in self.layers:
            encoder, last = self[layer].encoder_of(layer), torch.tensor([0, self.n_features(layer) - 1])
            threshold = encoder.activation.threshold
            parts = [
                encoder.bias,
                self.decoder_bias(layer),
                *self.encoder(layer, last),
                self.decoder(layer, last, layer),
            ]
            for part in (*parts, *(one for one in (threshold, self.skip(layer)) if one is not None)):
                found.update(widened(part).double().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def __repr__(self) -> str:
        """One line: kind, sites, layers, features."""
        widths = sorted({self.n_features(layer) for layer in self.layers})
        sites = self.reads if self.reads == self.writes else f"{self.reads} → {self.writes}"
        return f"DictionarySet({self.kind} at {sites}, layers {_spans(self.layers)}, {_spans(widths)} features each)"

    # ------------------------------------------------------------ a collection
    def __getitem__(self, layer: int) -> Dictionary:
        for dictionary in self.dictionaries:
            if layer in dictionary.layers:
                return dictionary
        raise IndexError(f"no {self.kind} reads layer {layer}; this set has layers {', '.join(map(str, self.layers))}.")

    def __iter__(self) -> Iterator[Dictionary]:
        return iter(self.dictionaries)

    def __len__(self) -> int:
        return len(self.dictionaries)

    def __contains__(self, dictionary: object) -> bool:
        return any(dictionary is mine for mine in self.dictionaries)


def as_dictionary_set(given: Any) -> DictionarySet:
    """The set that is meant by one dictionary, several, or a set.

    Args:
        given: A `DictionarySet`, one of the dictionaries, or an iterable of them.

    Raises:
        TypeError: Anything else.
        ValueError: They make no set.

    Example:
        >>> from whence.components.activation import Activation
        >>> one = Transcoder(3, torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), Activation("relu"))
        >>> as_dictionary_set(one).layers
        (3,)
    """
    if isinstance(given, DictionarySet):
        return given
    several: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    odd = [type(one).__name__ for one in several if not isinstance(one, Transcoder | SAE | CrossLayerTranscoder)]
    if odd:
        raise TypeError(
            f"dictionary= is or holds a {odd[0]}; it takes Transcoder, SAE and CrossLayerTranscoder objects, which "
            "whence.load_dictionary reads from a folder"
        )
    return DictionarySet(several)


def _spans(numbers: Iterable[int]) -> str:
    """Whole numbers with neighbours drawn together: "0-3, 7".

    Example:
        >>> _spans((0, 1, 2, 3, 7))
        '0-3, 7'
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)
