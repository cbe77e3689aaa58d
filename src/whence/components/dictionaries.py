"""Dictionaries of features as data that encodes and decodes: transcoders, cross-layer transcoders, sparse autoencoders.

    features = activation(x W_encᵀ + b_enc)        write = features W_dec + b_dec

W_enc and W_dec have one row a feature: the direction it reads, the direction it writes. A transcoder reads an MLP's
input (after its norm) and writes the MLP's output; a cross-layer transcoder reads there at one layer and writes at that
layer and every later one; a sparse autoencoder (SAE) reads a site and rebuilds it. Cost: two matrix products. Knows
nothing of models, files or training.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.activation import Activation
from whence.results.keys import Node

Site: TypeAlias = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
DictionaryKind: TypeAlias = Literal["transcoder", "cross_layer_transcoder", "sae"]


@dataclass(frozen=True, eq=False)
class _OneLayer:
    """What a transcoder and an SAE share: an encoder and a decoder at one layer."""

    layer: int
    W_enc: Float[Tensor, "feature d_model"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d_model"]
    b_dec: Float[Tensor, " d_model"]
    activation: Activation

    def __post_init__(self) -> None:
        n, d = self.W_enc.shape
        for name, shape in (("b_enc", (n,)), ("W_dec", (n, d)), ("b_dec", (d,))):
            _check_shape(f"the dictionary of layer {self.layer}", name, getattr(self, name), shape)

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[0]

    def pre_activations(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest feature"]:
        """What each feature reads, before the nonlinearity."""
        return x @ self.W_enc.T + self.b_enc

    def encode(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest feature"]:
        """The features' activations."""
        return self.activation(self.pre_activations(x))

    def decode(self, features: Float[Tensor, "*rest feature"]) -> Float[Tensor, "*rest d_model"]:
        """What the features write together, the decoder's bias included."""
        return features @ self.W_dec + self.b_dec


@dataclass(frozen=True, eq=False)
class Transcoder(_OneLayer):
    """A stand-in for one MLP: features that read its input and write its output.

    Example:
        >>> identity = torch.eye(3)
        >>> tiny = Transcoder(0, identity, torch.zeros(3), identity, torch.ones(3), Activation("relu"))
        >>> tiny.decode(tiny.encode(torch.tensor([2.0, -1.0, 0.0])))
        tensor([3., 1., 1.])
    """

    kind: ClassVar[DictionaryKind] = "transcoder"

    @property
    def reads(self) -> Literal["mlp_in"]:
        return "mlp_in"

    @property
    def writes(self) -> Site:
        return "mlp_out"

    def node(self, feature: int) -> Node:
        """The key of one feature: `2.mlp.feature:7`."""
        return Node("mlp.feature", self.layer, feature)


@dataclass(frozen=True, eq=False)
class SAE(_OneLayer):
    """A sparse autoencoder: features that read one site and rebuild it.

    Example:
        >>> identity = torch.eye(3)
        >>> tiny = SAE(1, identity, torch.zeros(3), identity, torch.zeros(3), Activation("relu"), "resid_post")
        >>> str(tiny.node(2))
        '1.resid_post.feature:2'
    """

    site: Site

    kind: ClassVar[DictionaryKind] = "sae"

    @property
    def reads(self) -> Site:
        return self.site

    @property
    def writes(self) -> Site:
        return self.site

    def node(self, feature: int) -> Node:
        """The key of one feature: `2.resid_post.feature:7`."""
        return Node(f"{self.site}.feature", self.layer, feature)


@dataclass(frozen=True, eq=False)
class CrossLayerTranscoder:
    """Features of every layer, each reading one MLP's input and writing to that MLP's output and all later ones'.

    `W_dec[source]` is [feature, layers written, d_model]: its second axis starts at the source layer itself.

    Example:
        >>> two_layers = CrossLayerTranscoder(
        ...     W_enc=torch.ones(2, 1, 1), b_enc=torch.zeros(2, 1), b_dec=torch.zeros(2, 1),
        ...     W_dec=(torch.ones(1, 2, 1), torch.ones(1, 1, 1)), activation=Activation("relu"))
        >>> two_layers.decode(two_layers.encode(torch.tensor([[3.0], [4.0]])))
        tensor([[3.],
                [7.]])
    """

    W_enc: Float[Tensor, "layer feature d_model"]
    b_enc: Float[Tensor, "layer feature"]
    W_dec: tuple[Float[Tensor, "feature _ d_model"], ...]
    b_dec: Float[Tensor, "layer d_model"]
    activation: Activation

    kind: ClassVar[DictionaryKind] = "cross_layer_transcoder"

    def __post_init__(self) -> None:
        layers, n, d = self.W_enc.shape
        if len(self.W_dec) != layers:
            raise ValueError(f"the cross-layer transcoder has {layers} encoders and {len(self.W_dec)} decoders.")
        for name, shape in (("b_enc", (layers, n)), ("b_dec", (layers, d))):
            _check_shape("the cross-layer transcoder", name, getattr(self, name), shape)
        for source, decoder in enumerate(self.W_dec):
            _check_shape("the cross-layer transcoder", f"W_dec[{source}]", decoder, (n, layers - source, d))

    @property
    def n_layers(self) -> int:
        return self.W_enc.shape[0]

    @property
    def n_features(self) -> int:
        """Features of one layer."""
        return self.W_enc.shape[1]

    @property
    def reads(self) -> Literal["mlp_in"]:
        return "mlp_in"

    @property
    def writes(self) -> Site:
        return "mlp_out"

    def node(self, layer: int, feature: int) -> Node:
        """The key of one feature, at the layer that it reads: `2.mlp.feature:7`."""
        return Node("mlp.feature", layer, feature)

    def pre_activations(self, x: Float[Tensor, "layer *rest d_model"]) -> Float[Tensor, "layer *rest feature"]:
        """What each feature reads, before the nonlinearity, from all MLP inputs at once."""
        return torch.einsum("l...d,lfd->l...f", x, self.W_enc) + _beside(self.b_enc, x)

    def encode(self, x: Float[Tensor, "layer *rest d_model"]) -> Float[Tensor, "layer *rest feature"]:
        """The features' activations."""
        return self.activation(self.pre_activations(x))

    def decode(self, features: Float[Tensor, "layer *rest feature"]) -> Float[Tensor, "layer *rest d_model"]:
        """What the features of every layer write at every MLP output, the decoders' biases included."""
        at_each = [
            torch.stack([features[source] @ self.W_dec[source][:, layer - source] for source in range(layer + 1)]).sum(
                0
            )
            for layer in range(self.n_layers)
        ]
        return torch.stack(at_each) + _beside(self.b_dec, features)


Dictionary: TypeAlias = Transcoder | SAE | CrossLayerTranscoder


def _beside(bias: Tensor, x: Tensor) -> Tensor:
    """The bias [layer, d] shaped to be added to [layer, ..., d]."""
    return bias.reshape(bias.shape[0], *(1,) * (x.ndim - 2), bias.shape[1])


def _check_shape(what: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{what}: {name} has shape {tuple(tensor.shape)}, and W_enc asks for {shape}.")
