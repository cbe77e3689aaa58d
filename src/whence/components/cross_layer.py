"""A cross-layer transcoder: features of every layer, each writing at the MLP that it reads and at all later ones.

    features[l] = activation[l](x[l] W_enc[l]ᵀ + b_enc[l])
    write[m]    = Σ_{l ≤ m} features[l] W_dec[l][:, m − l] + b_dec[m] + x[m] W_skip[m]ᵀ

Layers may have different numbers of features, and layers may be missing: such a layer is written by earlier ones and
has no bias. Cost: one product an encoder, one a pair of layers. Knows nothing of models, files or training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.activation import Activation
from whence.components.encoder import Encoder
from whence.components.lazy import LazyRows, Matrix
from whence.components.one_layer import check_shape, check_threshold, weighted
from whence.components.sites import DictionaryKind, TranscoderInput, TranscoderOutput
from whence.components.transcoder import check_sites
from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class CrossLayerTranscoder:
    """Features of several layers, each reading one MLP's input and writing to that MLP's output and all later ones'.

    Args:
        W_enc: For each layer that is read, [feature, d_model]; a tensor or `LazyRows`.
        b_enc: For each, one number a feature.
        W_dec: For each, [feature, layers written, d_model]: the second axis starts at the layer itself.
        b_dec: For each, what is written at it whatever the features say.
        activation: The nonlinearity; one for all, or one for each.
        layers: The layers that are read; 0, 1, 2 ... if not given.
        W_skip: For each, a linear map from its input to its output beside the features, as `x @ W_skip.T`.
        reads: "mlp_in", "mlp_in_normalized" or "resid_mid".
        writes: "mlp_out" or "mlp_out_normed".

    Raises:
        ValueError: Shapes that do not go together, layers that do not rise, or an unknown site.

    Example:
        >>> two_layers = CrossLayerTranscoder(
        ...     W_enc=(torch.ones(1, 1), torch.ones(1, 1)), b_enc=(torch.zeros(1), torch.zeros(1)),
        ...     W_dec=(torch.ones(1, 2, 1), torch.ones(1, 1, 1)), b_dec=(torch.zeros(1), torch.zeros(1)),
        ...     activation=Activation("relu"))
        >>> two_layers.decode(two_layers.encode(torch.tensor([[3.0], [4.0]])))
        tensor([[3.],
                [7.]])
    """

    W_enc: tuple[Float[Tensor, "_ _"] | LazyRows, ...]
    b_enc: tuple[Float[Tensor, " _"], ...]
    W_dec: tuple[Float[Tensor, "_ _ _"] | LazyRows, ...]
    b_dec: tuple[Float[Tensor, " _"], ...]
    activation: Activation | tuple[Activation, ...]
    layers: tuple[int, ...] = ()
    W_skip: tuple[Float[Tensor, "_ _"], ...] | None = None
    reads: TranscoderInput = "mlp_in"
    writes: TranscoderOutput = "mlp_out"

    kind: ClassVar[DictionaryKind] = "cross_layer_transcoder"

    def __post_init__(self) -> None:
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(len(self.W_enc))))
        what = "the cross-layer transcoder"
        check_sites(what, self.reads, self.writes)
        if list(self.layers) != sorted({layer for layer in self.layers if layer >= 0}):
            raise ValueError(f"{what} has layers {self.layers}; they rise, and count from 0.")
        self._check_numbers(what)
        d = self.W_enc[0].shape[1]
        for i, layer in enumerate(self.layers):
            n, reach = self.W_enc[i].shape[0], self.n_layers - layer
            asked = {"W_enc": (n, d), "b_enc": (n,), "W_dec": (n, reach, d), "b_dec": (d,), "W_skip": (d, d)}
            for name, shape in asked.items():
                if getattr(self, name) is not None:
                    check_shape(what, f"{name}[{i}]", getattr(self, name)[i].shape, shape)
            check_threshold(f"{what}, layer {layer}", self._activation(i), n)

    def _check_numbers(self, what: str) -> None:
        """As many of each as layers that are read."""
        encoders = len(self.W_enc)
        asked = {"decoders": self.W_dec, "encoder biases": self.b_enc, "decoder biases": self.b_dec}
        asked |= {"layers": self.layers, "skips": self.W_skip}
        asked |= {"activations": self.activation if isinstance(self.activation, tuple) else None}
        for name, given in asked.items():
            if given is not None and len(given) != encoders:
                raise ValueError(f"{what} has {encoders} encoders and {len(given)} {name}.")
        if not encoders:
            raise ValueError(f"{what} has no encoder; give one for each layer that is read.")

    @property
    def n_layers(self) -> int:
        """Layers 0 to n_layers - 1 are written, those before the first that is read excepted."""
        return self.layers[-1] + self.W_dec[-1].shape[1]

    def written(self, layer: int) -> tuple[int, ...]:
        """The layers that features of this layer write at."""
        return tuple(range(layer, self.n_layers))

    def encoder_of(self, layer: int) -> Encoder:
        """The reading half of one layer."""
        i = self.layers.index(layer)
        return Encoder(self.W_enc[i], self.b_enc[i], self._activation(i))

    def decoder_of(self, layer: int, at: int) -> Matrix:
        """What a unit of each feature of `layer` writes at layer `at`: [feature, d_model]."""
        if at not in self.written(layer):
            raise ValueError(f"features of layer {layer} write at layers {layer} to {self.n_layers - 1}, not at {at}.")
        decoder = self.W_dec[self.layers.index(layer)]
        return (
            replace(decoder, after=(_shifted(decoder, at - layer),))
            if isinstance(decoder, LazyRows)
            else decoder[:, at - layer]
        )

    def bias_of(self, layer: int) -> Float[Tensor, " d_model"]:
        """What is written at a layer whatever the features say; zero where no features read."""
        return self.b_dec[self.layers.index(layer)] if layer in self.layers else torch.zeros_like(self.b_dec[0])

    def skip_of(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """The linear map from a layer's input to its output beside the features."""
        return None if self.W_skip is None or layer not in self.layers else self.W_skip[self.layers.index(layer)]

    def node(self, layer: int, feature: int) -> Node:
        """The key of one feature, at the layer that it reads: `2.mlp.feature:7`."""
        return Node("mlp.feature", layer, feature)

    def encode(self, x: Float[Tensor, "layer *rest d_model"]) -> tuple[Float[Tensor, "*rest _"], ...]:
        """The activations of each layer's features, from all inputs that are read, in the order of `layers`."""
        return tuple(self.encoder_of(layer).encode(own) for layer, own in zip(self.layers, x, strict=True))

    def decode(self, features: Sequence[Float[Tensor, "*rest _"]]) -> Float[Tensor, "layer *rest d_model"]:
        """What the features of every layer write at every layer 0 to n_layers - 1, biases included and skips not."""
        sources = dict(zip(self.layers, features, strict=True))
        return torch.stack([self._written_at(sources, at) for at in range(self.n_layers)])

    def _written_at(self, sources: dict[int, Tensor], at: int) -> Tensor:
        like = next(iter(sources.values()))
        total = self.bias_of(at).to(like).expand(*like.shape[:-1], -1)
        for source, features in sources.items():
            if source <= at:
                total = total + weighted(features, self.decoder_of(source, at))
        return total

    def _activation(self, i: int) -> Activation:
        return self.activation[i] if isinstance(self.activation, tuple) else self.activation


def _shifted(decoder: LazyRows, step: int) -> int:
    """Where in the file the step-th layer written lies; a file may keep layers that are never written too."""
    first = decoder.after[0] if decoder.after else slice(0, None)
    return (first.start or 0) + step if isinstance(first, slice) else first
