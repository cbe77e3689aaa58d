"""The direction between two sets of words: what makes one set more likely than the other.

    vec = mean over words_a of u_w − mean over words_b of u_w,   u_w the unembedding row of token w

so that vec · x is the difference of the sets' mean logits (before biases and softcap). Whatever moves all logits alike
cancels. Cost: one row a word. Knows nothing of probabilities: the weight is the caller's.
"""

from collections.abc import Sequence

import torch

from whence.targets.custom import CustomTarget, check_custom
from whence.targets.readout import Readout


def concept_direction(
    model: Readout,
    words_a: str | int | Sequence[str | int],
    words_b: str | int | Sequence[str | int],
    *,
    name: str | None = None,
    weight: float = 1.0,
) -> CustomTarget:
    """A custom target along the mean unembedding row of `words_a` minus that of `words_b`.

    Args:
        model: gives the rows and looks up the words.
        words_a: words that the direction favours, each one token (text or id); a bare string is one word.
        words_b: words that it disfavours, likewise.
        name: label of the target; by default it lists the words.
        weight: its weight among other targets, at least 0.

    Raises:
        ValueError: a side without words, a word that is not one token, or a token given twice, on one side or on both.

    Example:
        >>> concept_direction(model, [" Austin", " Boston"], " Texas").token_str  # doctest: +SKIP
        "mean(' Austin', ' Boston') − mean(' Texas')"
    """
    sides = {"words_a": _ids(model, words_a, "words_a"), "words_b": _ids(model, words_b, "words_b")}
    _refuse_repeats(model, sides)
    means = [model.unembedding(torch.tensor(ids, device=model.device)).mean(0) for ids in sides.values()]
    label = " − ".join(f"mean({', '.join(repr(model.token_text(id)) for id in ids)})" for ids in sides.values())
    return check_custom((label if name is None else name, weight, means[0] - means[1]), model, "the concept direction")


def _ids(model: Readout, words: str | int | Sequence[str | int], side: str) -> list[int]:
    ids = [model.token_id(word) for word in ([words] if isinstance(words, (str, int)) else words)]
    if not ids:
        raise ValueError(f"{side} is empty: give at least one word.")
    return ids


def _refuse_repeats(model: Readout, sides: dict[str, list[int]]) -> None:
    home: dict[int, str] = {}
    for side, ids in sides.items():
        for id in ids:
            if id in home:
                where = f"twice in {side}" if home[id] == side else f"in both {home[id]} and {side}"
                raise ValueError(f"{model.token_text(id)!r} (id {id}) is {where}: give each token once.")
            home[id] = side
