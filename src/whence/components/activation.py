"""The nonlinearity of a dictionary: which of the things a feature could say it says.

Cost: one pass over the pre-activations, and a partial sort for top-k. Knows nothing of weights.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Activation:
    """The nonlinearity between reading and writing.

    Args:
        kind: "relu", or "topk": the k largest pre-activations of a position, those of them that are positive.
        k: How many features "topk" keeps; None for any other kind.

    Raises:
        ValueError: k is missing, below 1, or given to a kind that has none.

    Example:
        >>> Activation("topk", k=1)(torch.tensor([3.0, -1.0, 2.0]))
        tensor([3., 0., 0.])
    """

    kind: Literal["relu", "topk"]
    k: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("relu", "topk"):
            raise ValueError(f"activation {self.kind!r} is not known. Known: relu, topk.")
        if (self.kind == "topk") != (self.k is not None):
            raise ValueError(f"Activation({self.kind!r}, k={self.k}): give k for 'topk' and for nothing else.")
        if self.k is not None and self.k < 1:
            raise ValueError(f"Activation('topk', k={self.k}): k counts the features kept, so it is at least 1.")

    def __call__(self, pre: Float[Tensor, "*rest feature"]) -> Float[Tensor, "*rest feature"]:
        """The features of these pre-activations."""
        positive = pre.relu()
        if self.k is None or self.k >= pre.shape[-1]:
            return positive
        top = positive.topk(self.k, dim=-1)
        return torch.zeros_like(positive).scatter(-1, top.indices, top.values)
