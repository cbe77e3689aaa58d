"""Directions of the user's own as targets: a name, a weight and a vector in the stream after the final norm.

The number explained is vec · x, x the normalised final stream; it is never capped. The vector is used as given.
"""

import math
from typing import NamedTuple, SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from whence.targets.readout import Readout


class CustomTarget(NamedTuple):
    """A direction to explain; the plain tuple (token_str, prob, vec) means the same everywhere.

    Example:
        >>> CustomTarget("Austin minus Dallas", 1.0, torch.tensor([0.5, -0.5])).token_str
        'Austin minus Dallas'
    """

    token_str: str
    prob: float
    vec: Float[Tensor, " d_model"]


def check_custom(target: tuple[object, ...], model: Readout, where: str) -> CustomTarget:
    """The same target with its weight a float and its vector fp32 and detached, once every part is found right.

    Args:
        target: the triple as it came.
        model: gives the width and the device that the vector must have.
        where: what errors call the target, e.g. "attribution_targets[2]".

    Raises:
        ValueError: not three parts; a weight that is negative or not finite; a vector of another shape, on another
            device, or not finite.
        TypeError: a part of another type than (str, float, floating-point tensor).
    """
    if len(target) != 3:
        raise ValueError(f"{where} has length {len(target)}: a custom target is (token_str, prob, vec), length 3.")
    token_str, prob, vec = target
    if not isinstance(token_str, str):
        raise TypeError(f"{where}: token_str must be a str, not {type(token_str).__name__} ({token_str!r}).")
    return CustomTarget(token_str, _check_weight(prob, where), _check_vector(vec, model, where))


def _check_weight(prob: object, where: str) -> float:
    try:
        weight = float(prob) if isinstance(prob, SupportsFloat) and not isinstance(prob, bool) else None
    except (TypeError, ValueError, RuntimeError):  # numpy's and torch's ways of saying "several numbers"
        weight = None
    if weight is None:
        raise TypeError(f"{where}: prob must be one number, not {type(prob).__name__} ({prob!r}).")
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(
            f"{where}: prob is {weight}; give a finite weight of at least 0 (negate vec to turn it round)."
        )
    return weight


def _check_vector(vec: object, model: Readout, where: str) -> Float[Tensor, " d_model"]:
    if not isinstance(vec, Tensor):
        raise TypeError(f"{where}: vec must be a torch.Tensor, not {type(vec).__name__}.")
    if not vec.is_floating_point():
        raise TypeError(f"{where}: vec must hold floating-point numbers, not {vec.dtype}: use vec.float().")
    if tuple(vec.shape) != (model.d_model,):
        raise ValueError(
            f"{where}: vec must have shape ({model.d_model},), the model's d_model; got {tuple(vec.shape)}."
        )
    if not _same_device(vec.device, model.device):
        raise ValueError(f"{where}: vec is on {vec.device} and the model on {model.device}: use vec.to(model.device).")
    wrong = (~vec.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{where}: vec[{wrong[0]}] is {vec[wrong[0]].item()}; {len(wrong)} of its values are not finite."
        )
    return vec.detach().float()


def _same_device(one: torch.device, other: torch.device) -> bool:
    # "cuda" without a number means whichever is current, so only two different numbers disagree.
    numbers = {one.index, other.index} - {None}
    return one.type == other.type and len(numbers) < 2
