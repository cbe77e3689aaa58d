"""What features say of a vector: pre-activations W x + b, through the nonlinearity.

    dense      every feature of every position                        [..., feature]
    active     those that are not zero, as a list                     memory: positions x CHUNK, and what is active

Cost: one pass over the encoder's rows either way, read from disk where they lie there. Knows nothing of layers.
"""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.activation import Activation
from whence.components.lazy import CHUNK, Matrix, chunks, rows_of, widened


@dataclass(frozen=True, eq=False)
class Active:
    """Features that are not zero, by position, then feature."""

    position: Int[Tensor, " active"]
    feature: Int[Tensor, " active"]
    activation: Float[Tensor, " active"]
    pre_activation: Float[Tensor, " active"]

    def __len__(self) -> int:
        return len(self.position)


@dataclass(frozen=True, eq=False)
class Encoder:
    """One layer's reading half.

    Args:
        weight: [feature, d], in memory or in a file.
        bias: One number a feature.
        activation: The nonlinearity.

    Example:
        >>> found = Encoder(torch.eye(2), torch.zeros(2), Activation("relu")).active(torch.tensor([[3.0, -1.0]]))
        >>> found.feature.tolist(), found.activation.tolist()
        ([0], [3.0])
    """

    weight: Matrix
    bias: Float[Tensor, " feature"]
    activation: Activation

    @property
    def n_features(self) -> int:
        return self.weight.shape[0]

    def pre_activations(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest feature"]:
        """What each feature reads, before the nonlinearity."""
        return torch.cat([pre for _, pre in self._read(x, CHUNK)], -1)

    def encode(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest feature"]:
        """The features' activations."""
        return self.activation(self.pre_activations(x))

    def rows(self, feature: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
        """What these features read, and their biases."""
        return rows_of(self.weight, feature), widened(self.bias[feature.to(self.bias.device)])

    def active(self, x: Float[Tensor, "pos d"]) -> Active:
        """The features that are not zero. The largest of several equal ones at top-k's edge is any of them."""
        if self.activation.kind == "topk":
            return self._top(x)
        n, together = self.n_features, self.activation.together(self.n_features)
        found: list[tuple[Tensor, ...]] = []
        for place, pre in self._read(x, max(CHUNK // together, 1) * together):
            features = self.activation.part(place, n)(pre)
            at = features.nonzero(as_tuple=True)
            found.append((at[0], at[1] + place.start, features[at], pre[at]))
        return _sorted(n, *(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _top(self, x: Tensor) -> Active:
        """The k largest of each position, found chunk by chunk: what is not among its chunk's is not among all."""
        k = self.activation.k or 0
        values, index = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.long, device=x.device)
        for place, pre in self._read(x, CHUNK):
            here = torch.arange(place.start, place.stop, device=x.device).expand(len(x), -1)
            values, index = torch.cat([values.to(pre), pre], 1), torch.cat([index, here], 1)
            values, best = values.topk(min(k, values.shape[1]), dim=1)
            index = index.gather(1, best)
        features = values.relu() if self.activation.relu else values
        at = features.nonzero(as_tuple=True)
        return _sorted(self.n_features, at[0], index[at], features[at], values[at])

    def _read(self, x: Tensor, size: int) -> Generator[tuple[slice, Tensor]]:
        dtype = torch.promote_types(x.dtype, torch.promote_types(self.weight.dtype, torch.float32))
        x = x.to(dtype)
        for place, rows in chunks(self.weight, size):
            yield place, x @ rows.to(x).T + self.bias[place].to(x)


def _sorted(n_features: int, position: Tensor, feature: Tensor, activation: Tensor, pre: Tensor) -> Active:
    order = (position * n_features + feature).argsort()
    return Active(position[order], feature[order], activation[order], pre[order])
