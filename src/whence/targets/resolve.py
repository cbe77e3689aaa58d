"""What the caller asked to explain, made definite: ids, directions or functions, with one label each.

How forms are read. A string or an int is one token for every prompt. A list of them is several targets for every
prompt. A tensor (or array) is per prompt: [example]; [example, 2] for (answer, foil); with several positions asked also
[example, asked], a token per position, and [example, asked, 2], a pair per position. For two positions [example, 2]
could mean either and is refused. Foils take the same forms, pairs excepted; one foil serves every target, one target
every foil, and equally long lists go pair by pair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.model.batch import from_array
from whence.targets.attribution import AttributionTargets
from whence.targets.custom import CustomTarget, check_custom
from whence.targets.readout import Readout
from whence.targets.specs import ActivationTarget, Divergence, LogitDifference, Metric, Probability


@dataclass(frozen=True, eq=False)
class TokenTargets:
    """Logits of tokens, less those of foils or the mean over the vocabulary. Axes may be 1 where nothing varies."""

    ids: Int[Tensor, "example asked target"]
    foils: Int[Tensor, "example asked target"] | None
    centered: bool


@dataclass(frozen=True)
class MostLikely:
    """The token with the largest logit, at each position of each prompt."""

    centered: bool


@dataclass(frozen=True, eq=False)
class DirectionTargets:
    """Directions after the final norm: never capped, the output embedding's bias not in them."""

    vectors: Float[Tensor, "target d_model"]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class MetricTargets:
    """Functions of the logits."""

    functions: tuple[Callable[[Tensor], Tensor], ...]
    labels: tuple[str, ...]


Resolved: TypeAlias = TokenTargets | MostLikely | DirectionTargets | MetricTargets | ActivationTarget


def resolve(
    model: Readout, examples: int, asked: int, targets: Any, foils: Any = None, *, centered: bool = False
) -> Resolved:
    """The definite form of what was asked.

    Args:
        model: resolves strings and checks ids.
        examples: number of prompts.
        asked: number of positions asked for.
        targets: None, a token, tokens, a tensor, a constructor of `whence.targets.specs`, directions, or
            `AttributionTargets`.
        foils: tokens to subtract, in the same forms.
        centered: subtract the mean over the vocabulary.

    Raises:
        ValueError: a wrong length, shape, id or combination.
        TypeError: another kind of target.
    """
    targets, foils = from_array(targets), from_array(foils)
    if isinstance(targets, AttributionTargets) and not targets.has_virtual_indices:
        targets = targets.token_ids  # tokens like any others, so that softcap and output bias count
    if centered and foils is not None:
        raise ValueError("centered=True subtracts the mean logit; it cannot be combined with foils")
    if isinstance(targets, LogitDifference):
        _no_foils(foils, "a logit difference")
        answers, others = (_per_prompt(side) for side in (targets.answers, targets.foils))
        return resolve(model, examples, asked, answers, others, centered=centered)
    special = _special(model, targets)
    if special is not None:
        _no_foils(foils, "a target that is not a token")
        if centered:
            raise ValueError("centered=True is for token targets; this target is not a token")
        return special
    if targets is None:
        _no_foils(foils, "the most likely token (targets=None)")
        return MostLikely(centered)
    pairs = _pairs(targets, asked)
    if pairs is not None:
        if centered:
            raise ValueError("centered=True subtracts the mean logit; it cannot be combined with (answer, foil) pairs")
        _no_foils(foils, "pairs of (answer, foil)")
        answers, others = (_ids(model, side, examples, asked, "targets") for side in pairs.unbind(-1))
        return TokenTargets(answers, others, centered)
    ids = _ids(model, targets, examples, asked, "targets")
    if foils is None:
        return TokenTargets(ids, None, centered)
    others = _ids(model, foils, examples, asked, "foils")
    if 1 not in (ids.shape[2], others.shape[2]) and ids.shape[2] != others.shape[2]:
        raise ValueError(f"{ids.shape[2]} targets against {others.shape[2]} foils; give one of either, or equally many")
    ids, others = torch.broadcast_tensors(ids, others)
    return TokenTargets(ids, others, centered)


def _pairs(targets: Any, asked: int) -> Tensor | None:
    """A tensor of (answer, foil), if that is what was given.

    Raises:
        ValueError: two numbers per prompt for two positions, which could be a pair or a token each.
    """
    if not isinstance(targets, Tensor) or targets.ndim < 2 or targets.shape[-1] != 2:
        return None
    if targets.ndim == 2 and asked == 2:
        raise ValueError(
            f"targets of shape {list(targets.shape)} for two positions could be (answer, foil) or a token per "
            "position; pass targets=ids[:, 0], foils=ids[:, 1], or ids[:, :, None] for a token per position"
        )
    return targets


def _no_foils(foils: Any, what: str) -> None:
    if foils is not None:
        raise ValueError(f"foils cannot be combined with {what}; name the tokens to subtract as part of the target")


def _per_prompt(side: Any) -> Any:
    """Lists in a logit difference are one per prompt, unlike bare lists: marked by a wrapper that `_ids` knows."""
    return _PerPrompt(tuple(side)) if isinstance(side, Sequence) and not isinstance(side, str) else side


@dataclass(frozen=True)
class _PerPrompt:
    tokens: tuple[str | int, ...]


def _special(model: Readout, targets: Any) -> Resolved | None:
    """Targets that are not lists of tokens."""
    if isinstance(targets, ActivationTarget):
        return targets
    several: list[Any] = (
        list(targets) if isinstance(targets, list | tuple) and not isinstance(targets, CustomTarget) else []
    )
    if isinstance(targets, Probability | Divergence | Metric):
        several = [targets]
    if several and all(isinstance(one, Probability | Divergence | Metric) for one in several):
        labels, functions = zip(*(one.labelled(model) for one in several), strict=True)
        return MetricTargets(functions, labels)
    if isinstance(targets, AttributionTargets):
        return DirectionTargets(targets.logit_vectors, tuple(targets.tokens))
    if callable(targets):
        function: Any = targets
        return _special(model, Metric(function, getattr(targets, "__name__", "metric")))
    if isinstance(targets, CustomTarget) or (
        isinstance(targets, tuple) and len(targets) == 3 and isinstance(targets[2], Tensor)
    ):
        several = [targets]
    if several and all(isinstance(one, tuple) for one in several):
        checked = [check_custom(one, model, f"targets[{i}]") for i, one in enumerate(several)]
        return DirectionTargets(torch.stack([one.vec for one in checked]), tuple(one.token_str for one in checked))
    return None


def _ids(model: Readout, given: Any, examples: int, asked: int, what: str) -> Int[Tensor, "example asked target"]:
    if isinstance(given, _PerPrompt):
        if len(given.tokens) != examples:
            raise ValueError(f"{what}: {len(given.tokens)} tokens, one per prompt, for {examples} prompt(s)")
        return torch.tensor([model.token_id(token) for token in given.tokens], device=model.device)[:, None, None]
    if isinstance(given, Tensor) and given.ndim:
        return _tensor_ids(model, given, examples, asked, what)
    single = given.item() if isinstance(given, Tensor) else given
    if isinstance(single, str | SupportsIndex):
        return torch.tensor([[[model.token_id(single)]]], device=model.device)  # pyright: ignore[reportArgumentType]
    if not isinstance(given, Sequence):
        raise TypeError(
            f"{what} is {type(given).__name__}; expected a token, a list of tokens, a tensor of ids, or a target"
        )
    if not given:
        raise ValueError(f"{what} is empty; give at least one token")
    odd = next((i for i, token in enumerate(given) if not isinstance(token, str | SupportsIndex)), None)
    if odd is not None:
        raise TypeError(f"{what}[{odd}] is {type(given[odd]).__name__}; a list of {what} holds strings and ids alone")
    return torch.tensor([[[model.token_id(token) for token in given]]], device=model.device)


def _tensor_ids(model: Readout, given: Tensor, examples: int, asked: int, what: str) -> Tensor:
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"{what} is a tensor of {given.dtype}; ids are integers, directions come as CustomTarget")
    per_position = given.ndim > 1 and given.shape[1] == asked and given.shape[2:] in ((), (1,))
    if given.shape[0] != examples or not (given.ndim == 1 or per_position):
        per_position = f", [{examples}, {asked}] for a token per position" if asked > 1 else ""
        pair = f", [{examples}, 2] for (answer, foil)" if what == "targets" and asked != 2 else ""
        raise ValueError(
            f"{what} is a tensor of shape {list(given.shape)}; for {examples} prompt(s) and {asked} position(s) it "
            f"must be [{examples}]{per_position}{pair}. For several targets of every prompt pass a list."
        )
    for token in given.unique().tolist():
        model.token_id(token)
    ids = given.long().to(model.device)
    return ids[:, None, None] if ids.ndim == 1 else ids.reshape(examples, asked, 1)
