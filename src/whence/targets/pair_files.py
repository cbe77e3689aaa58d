"""Pairs from JSON-lines files: those that a model's tokenizer can use, and a count of those it cannot and why.

The format is that of `pair_lines`, the conditions those of `pair_tokens`. Prompts of different lengths are kept. Cost:
some 0.1 ms a line. Knows nothing of the model beyond its tokenizer.
"""

import logging
from pathlib import Path
from typing import Any

from whence.targets.pair_lines import read_lines
from whence.targets.pair_sieve import sift
from whence.targets.pair_tokens import PairEncoder
from whence.targets.pairs import Pairs, gathered

_QUOTED = 3  # lines of each reason that the log shows

logger = logging.getLogger(__name__)


def load_pairs(
    path: str | Path, model: Any, *, limit: int | None = None, seed: int | None = None, slots: str | None = None
) -> Pairs:
    """The pairs of a JSON-lines file that this model's tokenizer can use; `dropped` counts the others by reason.

    Args:
        path: of the file; each line has `clean_prefix` and `clean_answer`, and maybe `patch_prefix`,
            `patch_answer` and `case`.
        model: a `whence.Model` with a tokenizer, or a tokenizer.
        limit: keep at most so many usable pairs; a file with fewer gives all it has (`Pairs.sample` wants all it asks).
        seed: draws which, and in what order; None keeps the first ones. Only with `limit`.
        slots: names of positions, by which pairs are aligned: "simple", "nounpp", "within_rc" or "rc", as the
            structures of subject-verb agreement are called; a template like "The {subject} of the {owner}", whose
            words name their tokens and which takes any word for one in braces; "index" for numbers from the start of
            each prompt; or None. Special tokens in front are the slot "<bos>".

    Raises:
        FileFormatError: a line that holds no pair; the message names it.
        ValueError: no usable pair (the message counts why), a `limit` below 1, a `seed` alone, an unknown template.

    Example:
        >>> pairs = whence.load_pairs("nounpp_train.json", model, slots="nounpp")  # doctest: +SKIP
        >>> pairs.dropped  # doctest: +SKIP
        {'answer is not one token': 12}
    """
    _check_request(limit, seed)
    encoder, lines = PairEncoder(model, slots), read_lines(path)
    sifted = sift(encoder, (text for _, text in lines))
    seen = {
        reason: [f"line {lines[which][0]}: {what}" for which, what in refused[:_QUOTED]]
        for reason, refused in sifted.refused.items()
    }
    if not sifted.tokens:
        raise ValueError(
            f"{path} has no pair that can be used; of its {len(lines)} pairs were dropped: {sifted.account}. "
            f"{' '.join(quoted[0] + '.' for quoted in seen.values())} Check that tokenizer and template are those of "
            "the file, and that answers carry their leading space."
        )
    for reason, quoted in seen.items():
        logger.info("%s: %d of %d pairs dropped; %s", path, sifted.dropped[reason], len(lines), "; ".join(quoted))
    pairs = gathered(sifted.tokens, sifted.texts, encoder.order, dropped=sifted.dropped, source=Path(path).name)
    wanted = len(pairs) if limit is None else min(limit, len(pairs))
    return pairs[:wanted] if seed is None else pairs.sample(wanted, seed)


def _check_request(limit: int | None, seed: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it is at least 1, or None for every pair.")
    if limit is None and seed is not None:
        raise ValueError(f"seed is {seed}, but without a limit nothing is drawn; give a limit too.")
