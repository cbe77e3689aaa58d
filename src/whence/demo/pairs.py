"""Pairs for the demo grammar's agreement tasks: two prompts that differ in nothing but the subject's number.

The patch sentence is drawn from the same state of the generator as the clean one, with the subject's other number: so
only what agrees with the subject changes, which is its own form, the answer, and in a subject relative ("src") the verb
inside. Cost: some 0.4 ms a pair. Knows nothing of activations.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from whence.demo import lexicon
from whence.demo.grammar import AGREEMENT_KINDS, Item, agreement
from whence.targets.pair_lines import PairText
from whence.targets.pair_sieve import sift
from whence.targets.pair_tokens import PairEncoder
from whence.targets.pairs import Pairs, gathered

TEMPLATES = {
    "simple": "The {subject}",
    "pp": "The {subject} {preposition} the {distractor}",
    "orc": "The {subject} that the {distractor} {verb}",
    "src": "The {subject} that {verb} the {distractor}",
    "tpp": "The {subject} {preposition} the {distractor}",
    "pporc": "The {subject} that the {agent} {preposition} {the_2} {distractor} {verb}",
}
_SINGULAR = {noun[0] for noun in (*lexicon.PEOPLE, *lexicon.THINGS)}
_PLURAL = {noun[1] for noun in (*lexicon.PEOPLE, *lexicon.THINGS)}
_MISSES = 20_000  # draws in a row that repeat an earlier pair: by then there is no other


def agreement_pairs(model: Any, kind: str = "orc", n: int = 100, *, seed: int = 0, held_out: bool = False) -> Pairs:
    """Pairs of sentences of one kind, cut where the verb begins that agrees with the subject; no two are alike.

    Subject and distractor are singular or plural in turn; the case says which, noun by noun ("singular_plural"). The
    slots are "<bos>" and the words' roles. An answer is the first word of the verb ("has" of "has been").

    Args:
        model: the demo model or its tokenizer.
        kind: "simple" (The pilot), "pp" (... near the guards), "orc" (... that the guards like), "src" (... that likes
            the guards), "tpp" (as pp, of things), "pporc" (... that the clerk near the guards likes).
        n: how many.
        seed: of the draw.
        held_out: draw the pairs of nouns that training never showed as subject and distractor, instead of the others.

    Raises:
        ValueError: no such kind, fewer different pairs than `n`, held-out pairs of the kind "simple", which has one
            noun, or a tokenizer that is not the demo's.

    Example:
        >>> import whence
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> pairs = agreement_pairs(model, "orc", 4)
        >>> pairs.order
        ('<bos>', 'The', 'subject', 'that', 'the', 'distractor', 'verb')
    """
    if kind not in AGREEMENT_KINDS:
        raise ValueError(f"kind is {kind!r}; the grammar's kinds of agreement are {', '.join(AGREEMENT_KINDS)}.")
    if held_out and kind == "simple":
        raise ValueError("simple sentences have one noun, so no pair of nouns is held out; leave held_out False.")
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least one pair.")
    texts = [text for _, text in zip(range(n), _distinct(Random(seed), kind, held_out), strict=False)]
    if len(texts) < n:
        raise ValueError(
            f"asked for {n} pairs of the kind {kind!r}, but there are only about {len(texts)}; ask for fewer."
        )
    encoder = PairEncoder(model, TEMPLATES[kind])
    sifted = sift(encoder, texts)
    if sifted.refused:
        raise ValueError(
            f"this tokenizer is not the demo's: it cannot use {n - len(sifted.tokens)} of {n} pairs, {sifted.account}. "
            "Give whence.Model.from_pretrained(whence.demo.model_path())."
        )
    source = f"demo agreement ({kind}, {'held out' if held_out else 'trained on'}, seed {seed})"
    return gathered(sifted.tokens, texts, encoder.order, source=source)


def _distinct(r: Random, kind: str, held_out: bool) -> Iterator[PairText]:
    """Different pairs, until draws bring no new one; the numbers of subject and distractor take turns."""
    seen: set[PairText] = set()
    misses = 0
    while misses < _MISSES:
        number, distractor = len(seen) % 2, len(seen) // 2 % 2
        pair = _drawn(r, kind, number, distractor, held_out)
        misses = misses + 1 if pair in seen else 0
        if pair not in seen:
            seen.add(pair)
            yield pair


def _drawn(r: Random, kind: str, number: int, distractor: int, held_out: bool) -> PairText:
    """One sentence, and the one that the same state of the generator gives for the subject's other number."""
    state = r.getstate()
    clean = agreement(r, kind, number=number, distractor=distractor, held_out=held_out)
    r.setstate(state)
    patch = agreement(r, kind, number=1 - number, distractor=distractor, held_out=held_out)
    return PairText(clean.prefix, _first_word(clean), patch.prefix, _first_word(patch), _case(clean))


def _first_word(item: Item) -> str:
    return f" {item.answer.split()[0]}"


def _case(item: Item) -> str:
    """The number of every noun, in the order of the words."""
    words = [word for word in item.prefix.split() if word in _SINGULAR | _PLURAL]
    return "_".join("plural" if word in _PLURAL else "singular" for word in words)
