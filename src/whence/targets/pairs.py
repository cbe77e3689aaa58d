"""Pairs of prompts that differ in one thing, with the answer that each calls for: what a circuit is found on.

The clean prompt of a pair is explained; the patch prompt gives the activations that its own are compared with. Both
have the same number of tokens; pairs of different lengths may stand side by side. Where positions have names (slots),
these align the positions of different pairs. Cost: nothing but memory. Knows nothing of any model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, SupportsIndex, TypeVar

from whence.targets.pair_checks import Prompts, check_counts, check_prompts, check_slots, numbers_of
from whence.targets.pair_lines import PairText, write_lines
from whence.targets.pair_tokens import PairEncoder, PairTokens, UnusablePair
from whence.targets.pair_words import PairDecoder

_BY_PAIR = ("clean", "patch", "clean_answers", "patch_answers", "cases", "slots")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Clean and patch prompts as token ids, special tokens included, and their answers.

    Args:
        clean: token ids of each clean prompt.
        patch: of each patch prompt, as many as its clean one has; None where there are no patch prompts.
        clean_answers: the token that is right after each clean prompt.
        patch_answers: the token that is right after each patch prompt; None where there are none.
        cases: what each pair is an example of, e.g. "singular_plural"; "" for each if left out.
        slots: the name of each token's position, the same for both prompts of a pair; several tokens may share one.
        order: the slots in their order.
        dropped: why pairs were left out when these were read, and how many each time; selections keep it.
        source: where they come from.

    Raises:
        ValueError: no pairs, or parts that do not fit together; the message names the pair.

    Example:
        >>> pairs = Pairs(((0, 5), (0, 7)), ((0, 6), (0, 8)), (1, 1), (2, 2), cases=("thing", "person"))
        >>> len(pairs), pairs.where(case="person").clean
        (2, ((0, 7),))
    """

    clean: Prompts
    patch: Prompts | None
    clean_answers: tuple[int, ...]
    patch_answers: tuple[int, ...] | None
    cases: tuple[str, ...] = ()
    slots: tuple[tuple[str, ...], ...] | None = None
    order: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    source: str = ""

    def __post_init__(self) -> None:
        """Name the cases "" if there are none, and refuse parts that do not fit together."""
        n = len(self.clean)
        object.__setattr__(self, "cases", self.cases or ("",) * n)
        check_prompts(self.clean, self.patch)
        check_counts(
            n, clean_answers=self.clean_answers, patch_answers=self.patch_answers, cases=self.cases, slots=self.slots
        )
        check_slots(self.clean, self.slots, self.order)

    @classmethod
    def from_texts(
        cls,
        model: Any,
        clean: Sequence[str],
        patch: Sequence[str] | None,
        clean_answers: Sequence[str],
        patch_answers: Sequence[str] | None = None,
        *,
        cases: Sequence[str] | None = None,
        slots: str | None = None,
    ) -> "Pairs":
        """Pairs of texts, each of which must be usable; `load_pairs` leaves out those that are not.

        Args:
            model: a `whence.Model` with a tokenizer, or a tokenizer.
            clean: the clean prompts.
            patch: the patch prompts, or None.
            clean_answers: what follows each clean prompt, its leading space included: one token.
            patch_answers: what follows each patch prompt, or None.
            cases: what each pair is an example of.
            slots: names of positions, as in `load_pairs`.

        Raises:
            ValueError: lists of different lengths, or a pair that cannot be used; the message names it and says why.

        Example:
            >>> import whence
            >>> model = whence.Model.from_pretrained(whence.demo.model_path())
            >>> Pairs.from_texts(model, ["The pilots"], ["The pilot"], [" are"], [" is"], slots="simple").order
            ('<bos>', 'The', 'subject')
        """
        given = {"clean_answers": clean_answers, "patch": patch, "patch_answers": patch_answers, "cases": cases}
        check_counts(len(clean), **given)
        nothing = [None] * len(clean)
        columns = (clean, clean_answers, patch or nothing, patch_answers or nothing, cases or [""] * len(clean))
        texts = [PairText(*row) for row in zip(*columns, strict=True)]
        encoder = PairEncoder(model, slots)
        return gathered([_usable(encoder, text, number) for number, text in enumerate(texts)], texts, encoder.order)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.clean)

    def __getitem__(self, which: slice | Iterable[SupportsIndex]) -> "Pairs":
        """The pairs of a slice, or those of these numbers in this order.

        Raises:
            TypeError: truth values or a single number; `pairs[3:4]` is one pair.
            IndexError: a number that is no pair's.
            ValueError: nothing is left.
        """
        numbers = range(len(self))[which] if isinstance(which, slice) else numbers_of(which, len(self))
        parts: dict[str, Any] = {name: getattr(self, name) for name in _BY_PAIR}
        kept = {name: tuple(part[i] for i in numbers) for name, part in parts.items() if part is not None}
        return replace(self, **kept)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens of each pair's prompts."""
        return tuple(map(len, self.clean))

    def sample(self, n: int, seed: int = 0) -> "Pairs":
        """Some of the pairs, drawn without repetition, in the order they were drawn.

        Args:
            n: how many.
            seed: of the draw; the same seed gives the same pairs.

        Raises:
            ValueError: fewer than `n` pairs, or `n` below 1; the message names both numbers.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"cannot draw {n} pairs from {len(self)}; ask for 1 to {len(self)}.")
        return self[Random(seed).sample(range(len(self)), n)]

    def where(self, *, case: str) -> "Pairs":
        """The pairs of one case.

        Args:
            case: as in `cases`.

        Raises:
            ValueError: no pair is of that case; the message names those there are.
        """
        if case not in self.cases:
            raise ValueError(
                f"no pair is of the case {case!r}; there are {', '.join(map(repr, sorted({*self.cases})))}."
            )
        return self[[number for number, own in enumerate(self.cases) if own == case]]

    def by_length(self) -> "dict[int, Pairs]":
        """The pairs of each number of tokens, shortest first."""
        lengths = self.lengths
        return {
            length: self[[number for number, own in enumerate(lengths) if own == length]]
            for length in sorted({*lengths})
        }

    def text(self, model: Any) -> tuple[PairText, ...]:
        """The pairs as text that gives the same tokens again, special tokens in front left off.

        Args:
            model: a `whence.Model` with a tokenizer, or a tokenizer.

        Raises:
            ValueError: no text gives these tokens; the message names the pair.
        """
        decode = PairDecoder(model)
        nothing = [None] * len(self)
        columns = (self.clean, self.clean_answers, self.patch or nothing, self.patch_answers or nothing, self.cases)
        return tuple(decode(number, *row) for number, row in enumerate(zip(*columns, strict=True)))

    def to_json_lines(self, path: str | Path, model: Any) -> None:
        """Write the pairs as text, one JSON object a line, for `load_pairs`; the file appears whole or not at all.

        Args:
            path: to write to; a file there is replaced.
            model: a `whence.Model` with a tokenizer, or a tokenizer.

        Raises:
            ValueError: no text gives these tokens; the message names the pair.
        """
        write_lines(path, self.text(model))


def gathered(
    tokens: Sequence[PairTokens],
    texts: Sequence[PairText],
    order: tuple[str, ...],
    *,
    dropped: Mapping[str, int] | None = None,
    source: str = "",
) -> Pairs:
    """Pairs of encoded ones, which all have the same fields; slots without an `order` are numbers from 0 on."""
    if tokens and tokens[0].slots is not None and not order:
        order = tuple(str(position) for position in range(max(len(one.clean) for one in tokens)))
    return Pairs(
        clean=tuple(one.clean for one in tokens),
        patch=_column([one.patch for one in tokens]),
        clean_answers=tuple(one.clean_answer for one in tokens),
        patch_answers=_column([one.patch_answer for one in tokens]),
        cases=tuple(text.case for text in texts),
        slots=_column([one.slots for one in tokens]),
        order=order,
        dropped=dropped or {},
        source=source,
    )


def _usable(encoder: PairEncoder, text: PairText, number: int) -> PairTokens:
    try:
        return encoder(text)
    except UnusablePair as error:
        raise ValueError(f"pair {number} cannot be used: {error}.") from error


def _column(values: Sequence[T | None]) -> tuple[T, ...] | None:
    """The values of all pairs, or None where there are none: all pairs have one or none has."""
    return tuple(value for value in values if value is not None) or None
