"""Pairs for subject–verb agreement across a relative clause, made from a template and lists of words.

    The {subject} that the {noun} {verb} → is/are, does/do, has/have, goes/go

The verb inside the clause agrees with the noun inside it; the answer agrees with the subject, and the patch prompt has
the subject's other number. A fifth of the unordered pairs of nouns belongs to the test split alone. Cases (numbers of
subject and noun) and answers take turns, so that all are equally frequent where the tokenizer can use every sentence.
Cost: some 0.3 ms a pair.
"""

from itertools import cycle, product
from random import Random
from typing import Any, Literal, get_args
from zlib import crc32

from whence.targets.pair_lines import PairText
from whence.targets.pair_sieve import sift
from whence.targets.pair_tokens import PairEncoder
from whence.targets.pairs import Pairs, gathered

Split = Literal["train", "test"]
_words = str.split
# Common words, so that most tokenizers have both forms as one token; all form their plural with "s".
NOUNS = _words(
    "author actor artist baker banker boy clerk coach cook cousin customer dancer daughter designer director doctor "
    "driver editor engineer expert farmer friend girl guard guest guide hunter judge king lawyer leader manager member "
    "minister neighbor nurse officer owner painter parent player poet priest prince queen ranger sailor scientist "
    "senator singer sister soldier son student surgeon teacher visitor waiter worker writer"
)
VERBS = _words(
    "see like know help follow call love remember visit hear thank want trust need avoid admire blame meet join support"
)
ANSWERS = ((" is", " are"), (" does", " do"), (" has", " have"), (" goes", " go"))
NUMBERS = ("singular", "plural")
_TEST_SHARE = 5


def relative_clause_pairs(model: Any, n: int = 100, *, seed: int = 0, split: Split = "train") -> Pairs:
    """Pairs whose prompts are "The {subject} that the {noun} {verb}", slots named as in the template "rc".

    Args:
        model: a `whence.Model` with a tokenizer, or a tokenizer.
        n: how many, at most some tens of thousands; no two are alike.
        seed: of the draw.
        split: "train" or "test", which have no pair of nouns in common, in either order.

    Raises:
        ValueError: another split, or fewer sentences than `n` that the tokenizer can use (an answer of several tokens,
            singular and plural of different length, an unknown word); the message counts why.

    Example:
        >>> pairs = relative_clause_pairs(model, 200, split="test")  # doctest: +SKIP
        >>> pairs.cases[:4]  # doctest: +SKIP
        ('singular_singular', 'singular_plural', 'plural_singular', 'plural_plural')
    """
    if split not in get_args(Split) or n < 1:
        raise ValueError(f"split is {split!r} and n is {n}; splits are 'train' and 'test', and n is at least 1.")
    encoder, cells = PairEncoder(model, "rc"), cycle(product(ANSWERS, (0, 1), (0, 1)))
    texts = (_pair(*words, *cell) for words, cell in zip(_combinations(split, seed), cells, strict=False))
    sifted = sift(encoder, texts, n)
    if len(sifted.tokens) < n:
        raise ValueError(
            f"asked for {n} pairs, but this tokenizer can use {len(sifted.tokens)} sentences of the split {split!r}; "
            f"dropped: {sifted.account}. Ask for fewer, or load pairs of your own."
        )
    source = f"relative clauses ({split}, seed {seed})"
    return gathered(sifted.tokens, sifted.texts, encoder.order, dropped=sifted.dropped, source=source)


def _combinations(split: Split, seed: int) -> list[tuple[str, str, str]]:
    """Every two nouns of a split with every verb, shuffled."""
    nouns = [pair for pair in product(NOUNS, NOUNS) if pair[0] != pair[1] and _split_of(*pair) == split]
    every = [(subject, noun, verb) for (subject, noun), verb in product(nouns, VERBS)]
    Random(seed).shuffle(every)
    return every


def _split_of(*nouns: str) -> Split:
    return "test" if crc32("|".join(sorted(nouns)).encode()) % _TEST_SHARE == 0 else "train"


def _pair(subject: str, noun: str, verb: str, answers: tuple[str, str], number: int, inner: int) -> PairText:
    """The pair of these words; numbers are 0 for singular and 1 for plural."""
    subjects = (subject, f"{subject}s")
    clause = f"that the {noun}s {verb}" if inner else f"that the {noun} {verb}s"
    return PairText(
        clean_prefix=f"The {subjects[number]} {clause}",
        clean_answer=answers[number],
        patch_prefix=f"The {subjects[1 - number]} {clause}",
        patch_answer=answers[1 - number],
        case=f"{NUMBERS[number]}_{NUMBERS[inner]}",
    )
