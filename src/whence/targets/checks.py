"""Reading what a user gave as targets, every element inspected, so that a mistake is named where it was made."""

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from whence.targets.custom import CustomTarget

Kind = Literal["ids", "strings", "directions"]
_FORMS = "None, a tensor of token ids, a sequence of strings, or a sequence of (token_str, prob, vec)"


def read_targets(given: object) -> tuple[Kind, list[Any]]:
    """The kind of targets given and their list; one bare string or `CustomTarget` is a list of one.

    Raises:
        TypeError: another container, elements of another type, or of more than one type; the message says which.
        ValueError: no targets at all, or ids in more than one dimension.
    """
    if isinstance(given, Tensor):
        return "ids", _read_ids(given)
    if isinstance(given, (str, CustomTarget)):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise TypeError(f"attribution_targets is a {type(given).__name__}; give {_FORMS}.")
    if not given:
        raise ValueError("attribution_targets is empty: give at least one target, or None for the most likely tokens.")
    return _common_kind(given), list(given)


def _read_ids(given: Tensor) -> list[int]:
    if given.is_floating_point() or given.is_complex() or str(given.dtype) == "torch.bool":
        raise TypeError(f"attribution_targets is a tensor of {given.dtype}; token ids are integers, e.g. torch.int64.")
    if given.ndim > 1:
        raise ValueError(f"attribution_targets has shape {tuple(given.shape)}; token ids are one row: shape (k,).")
    if not given.numel():
        raise ValueError("attribution_targets is an empty tensor: give an id, or None for the most likely tokens.")
    return given.reshape(-1).tolist()


def _common_kind(given: Sequence[object]) -> Kind:
    first, names = _kind(given[0]), [type(element).__name__ for element in given]
    if first is None:
        hint = " For token ids give a tensor: torch.tensor([...])." if isinstance(given[0], int) else ""
        raise TypeError(f"attribution_targets[0] is a {names[0]}; give {_FORMS}.{hint}")
    odd = next((i for i, element in enumerate(given) if _kind(element) != first), None)
    if odd is not None:
        mix = f"attribution_targets[{odd}] is a {names[odd]} but attribution_targets[0] is a {names[0]}"
        raise TypeError(f"{mix}: all must be strings, or all (token_str, prob, vec) tuples.")
    return first


def _kind(element: object) -> Kind | None:
    return "strings" if isinstance(element, str) else "directions" if isinstance(element, tuple) else None


def check_distinct(ids: Sequence[int], texts: Sequence[str]) -> None:
    """Refuse a token named twice: its row would count twice in every total.

    Raises:
        ValueError: naming the token and the two places.
    """
    first: dict[int, int] = {}
    for i, id in enumerate(ids):
        if first.setdefault(id, i) != i:
            twice = f"attribution_targets[{first[id]}] and [{i}] are the same token, {texts[i]!r} (id {id})"
            raise ValueError(f"{twice}: it would count twice. Give it once.")


def check_limits(max_n_logits: int, desired_logit_prob: float) -> None:
    """Refuse a limit that no number of logits can meet.

    Raises:
        ValueError: max_n_logits below 1, or desired_logit_prob outside (0, 1].
    """
    if max_n_logits < 1:
        raise ValueError(f"max_n_logits is {max_n_logits}; at least 1 logit is needed.")
    if not 0 < desired_logit_prob <= 1:
        raise ValueError(f"desired_logit_prob is {desired_logit_prob}; a probability above 0 and up to 1 is needed.")


def check_logits(logits: Tensor, vocab_size: int) -> Float[Tensor, " vocab"]:
    """The logits in fp32, one for each token of the model; -inf, a token ruled out, is allowed.

    Raises:
        ValueError: another shape, NaN or +inf among them, or no finite one.
    """
    if tuple(logits.shape) != (vocab_size,):
        shape = tuple(logits.shape)
        raise ValueError(f"logits must have shape ({vocab_size},), one position of one prompt; got {shape}.")
    logits = logits.detach().float()
    largest = logits.amax()  # NaN if any is
    if not largest.isfinite():
        raise ValueError(f"logits have {largest.item()} as their largest value, so there are no probabilities to take.")
    return logits
