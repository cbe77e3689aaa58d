"""From what a network says to an importance in [0, 1].

    leaky_hard, hard, upper_leaky_hard     min(max(x, 0), 1); their leaks serve the training, or lie above 1
    normal                                 1 / (1 + exp(−x))
    swish_hard                             a hard sigmoid rounded by swishes, which overshoots by up to 0.03

All are clamped to [0, 1]. Nothing is sampled.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_STEEPNESS = 10.0


def _swish_hard(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    def below(z: Tensor) -> Tensor:
        return z * torch.sigmoid(-_STEEPNESS * z)

    def above(z: Tensor) -> Tensor:
        return z * torch.sigmoid(_STEEPNESS * z)

    centred = x - 0.5
    return 0.5 + below(centred - 0.5) - above(centred) + above(centred + 0.5) - below(centred)


def _as_it_is(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return x


SIGMOIDS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("leaky_hard", "hard", "upper_leaky_hard"), _as_it_is),
    "normal": torch.sigmoid,
    "swish_hard": _swish_hard,
}


def importance_of(x: Float[Tensor, "*shape"], sigmoid: str) -> Float[Tensor, "*shape"]:
    """The importances.

    Example:
        >>> importance_of(torch.tensor([-0.5, 0.25, 3.0]), "leaky_hard")
        tensor([0.0000, 0.2500, 1.0000])
    """
    return SIGMOIDS[sigmoid](x).clamp(0.0, 1.0)
