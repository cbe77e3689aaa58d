"""The nonlinearity of a dictionary: which of the things a feature could say it says.

    relu        max(p, 0)
    topk        the k largest p of a position
    groupmax    the largest p of each of k groups of features of equal size, side by side
    jumprelu    p where p > threshold, else 0; one threshold a feature
    batchtopk   the same with the threshold that stands for the batch's k-th largest p once training is over

All but `relu` pass through max(·, 0) too, unless `relu` is False. A gated encoder is a jumprelu (`gated.py`). Cost: one
pass over the pre-activations, and a partial sort for topk. Knows nothing of weights.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

ActivationKind: TypeAlias = Literal["relu", "topk", "groupmax", "jumprelu", "batchtopk"]
_COUNTED, _THRESHOLDED = ("topk", "groupmax"), ("jumprelu", "batchtopk")


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """The nonlinearity between reading and writing.

    Args:
        kind: one of those above.
        k: How many features "topk" keeps, how many groups "groupmax" has; None for any other kind.
        threshold: what "jumprelu" and "batchtopk" ask a pre-activation to exceed, one number a feature or one for all.
        relu: Whether what is kept must also be positive.

    Raises:
        ValueError: k or threshold is missing, or given to a kind that has none; k is below 1.

    Example:
        >>> Activation("topk", k=1)(torch.tensor([3.0, -1.0, 2.0]))
        tensor([3., 0., 0.])
    """

    kind: ActivationKind
    k: int | None = None
    threshold: Float[Tensor, " feature"] | Float[Tensor, ""] | None = None
    relu: bool = True

    def __post_init__(self) -> None:
        known = get_args(ActivationKind)
        if self.kind not in known:
            raise ValueError(f"activation {self.kind!r} is not known. Known: {', '.join(known)}.")
        if (self.kind in _COUNTED) != (self.k is not None):
            raise ValueError(
                f"Activation({self.kind!r}, k={self.k}): give k for 'topk', 'groupmax' and for nothing else."
            )
        if (self.kind in _THRESHOLDED) != (self.threshold is not None):
            raise ValueError(
                f"Activation({self.kind!r}): give threshold for 'jumprelu', 'batchtopk' and for nothing else."
            )
        if self.k is not None and self.k < 1:
            raise ValueError(f"Activation({self.kind!r}, k={self.k}): k counts the features kept, so it is at least 1.")
        if self.kind == "relu" and not self.relu:
            raise ValueError("Activation('relu', relu=False) keeps nothing from passing; relu is True for this kind.")

    def __call__(self, pre: Float[Tensor, "*rest feature"]) -> Float[Tensor, "*rest feature"]:
        """The features of these pre-activations."""
        kept = pre.relu() if self.relu else pre
        if self.threshold is not None:
            return torch.where(pre > self.threshold.to(pre), kept, 0.0)
        if self.k is None or self.k >= pre.shape[-1]:
            return kept
        if self.kind == "topk":
            return _only(kept, *kept.topk(self.k, dim=-1))
        groups = kept.unflatten(-1, (self.k, -1))
        return _only(groups, *groups.max(-1, keepdim=True)).flatten(-2)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Activation) or self._settings != other._settings:
            return False
        mine, theirs = self.threshold, other.threshold
        return mine is theirs or (mine is not None and theirs is not None and torch.equal(mine, theirs))

    def __hash__(self) -> int:
        return hash(self._settings)

    @property
    def _settings(self) -> tuple[str, int | None, bool]:
        return self.kind, self.k, self.relu

    def together(self, n_features: int) -> int:
        """How many neighbouring features are decided together: a group's size; 1 for a kind that looks at each alone.

        Raises:
            ValueError: The features do not split into k groups of one size.
        """
        if self.kind != "groupmax" or self.k is None:
            return 1
        if n_features % self.k:
            raise ValueError(f"{n_features} features do not split into {self.k} groups of one size, as groupmax needs.")
        return n_features // self.k

    def part(self, features: slice, n_features: int) -> "Activation":
        """The nonlinearity of these features alone, where no other decides over them (`together`)."""
        if self.kind == "groupmax":
            return replace(self, k=(features.stop - features.start) // self.together(n_features))
        if self.threshold is None or not self.threshold.ndim:
            return self
        return replace(self, threshold=self.threshold[features])


def _only(values: Tensor, chosen: Tensor, index: Tensor) -> Tensor:
    """Zero but for the chosen values."""
    return torch.zeros_like(values).scatter(-1, index, chosen)
