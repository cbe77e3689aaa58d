"""What a transcoder and a sparse autoencoder share: an encoder and a decoder at one layer.

    features = activation(x W_encᵀ + b_enc)        write = features W_dec + b_dec (+ x W_skipᵀ)

W_enc and W_dec have one row a feature: the direction it reads, the direction it writes; either may lie in a file
(`LazyRows`). Cost: two matrix products. Knows nothing of models, files or training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.activation import Activation
from whence.components.encoder import Encoder
from whence.components.lazy import LazyRows, Matrix, chunks


@dataclass(frozen=True, eq=False)
class OneLayer:
    """An encoder and a decoder at one layer."""

    layer: int
    W_enc: Float[Tensor, "_ _"] | LazyRows
    b_enc: Float[Tensor, " _"]
    W_dec: Float[Tensor, "_ _"] | LazyRows
    b_dec: Float[Tensor, " _"]
    activation: Activation

    def __post_init__(self) -> None:
        n, d = self.W_enc.shape
        what = f"the dictionary of layer {self.layer}"
        if self.layer < 0:
            raise ValueError(f"{what}: layers count from 0.")
        check_shape(what, "b_enc", self.b_enc.shape, (n,))
        check_shape(what, "W_dec", self.W_dec.shape, (n, d))
        check_shape(what, "b_dec", self.b_dec.shape, (d,))
        check_threshold(what, self.activation, n)

    @property
    def n_features(self) -> int:
        return self.W_enc.shape[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer, as a set of dictionaries lists them."""
        return (self.layer,)

    def written(self, layer: int) -> tuple[int, ...]:
        """The layers that features of this layer write at."""
        return (layer,)

    def encoder_of(self, layer: int) -> Encoder:
        """The reading half; `layer` is this one."""
        return Encoder(self.W_enc, self.b_enc, self.activation)

    def decoder_of(self, layer: int, at: int) -> Matrix:
        """What a unit of each feature writes; `layer` and `at` are this layer."""
        return self.W_dec

    def bias_of(self, layer: int) -> Float[Tensor, " d_model"]:
        """What is written whatever the features say."""
        return self.b_dec

    def skip_of(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """The linear map from input to output beside the features."""
        return None

    def pre_activations(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest feature"]:
        """What each feature reads, before the nonlinearity."""
        return self.encoder_of(self.layer).pre_activations(x)

    def encode(self, x: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest feature"]:
        """The features' activations."""
        return self.encoder_of(self.layer).encode(x)

    def decode(self, features: Float[Tensor, "*rest feature"]) -> Float[Tensor, "*rest d_model"]:
        """What the features write together, the decoder's bias included and a skip not."""
        return weighted(features, self.W_dec) + self.b_dec.to(features)


def weighted(features: Float[Tensor, "*rest feature"], rows: Matrix) -> Float[Tensor, "*rest d_model"]:
    """The sum of the rows, weighted by the features."""
    products = [features[..., place] @ part.to(features) for place, part in chunks(rows)]
    return torch.stack(products).sum(0) if len(products) > 1 else products[0]


def check_shape(what: str, name: str, found: tuple[int, ...], asked: tuple[int, ...]) -> None:
    """Refuse a tensor that does not go with the encoder."""
    if tuple(found) != asked:
        raise ValueError(f"{what}: {name} has shape {tuple(found)}, and W_enc asks for {asked}.")


def check_threshold(what: str, activation: Activation, n_features: int) -> None:
    """Refuse thresholds of other features than the encoder's, and groups that they do not split into."""
    if activation.threshold is not None and activation.threshold.ndim:
        check_shape(what, "threshold", activation.threshold.shape, (n_features,))
    _ = activation.together(n_features)
