"""From the text of a pair to its tokens, or the reason why it cannot be used.

A pair can be used if the tokenizer knows every word, each answer is exactly one token after its own prompt
(tokens(prompt + answer) = tokens(prompt), answer), the two answers differ, the two prompts differ, and they have the
same number of tokens, slot by slot where slots are named. Cost: four encodings a pair, and with a template one for
each word. Knows nothing of the model.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from whence.targets.pair_lines import PairText
from whence.targets.pair_slots import FRONT, slots_of, template

UNKNOWN = "unknown word"
ANSWER = "answer is not one token"
SAME_ANSWER = "answers are the same"
SAME_PROMPT = "prompts are the same"
LENGTH = "prompts differ in length"
UNFIT = "template does not fit"
SHIFTED = "slots differ between the prompts"


class UnusablePair(ValueError):
    """A pair that cannot be used: `reason` is one of a handful, the message says what was seen."""

    def __init__(self, reason: str, seen: str) -> None:
        super().__init__(f"{reason}: {seen}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PairTokens:
    """One pair as tokens; the slot of each token where slots are named, the same on both sides."""

    clean: tuple[int, ...]
    clean_answer: int
    patch: tuple[int, ...] | None
    patch_answer: int | None
    slots: tuple[str, ...] | None


class PairEncoder:
    """Turns pairs into tokens by one tokenizer, special tokens in front as it is set up to put them.

    Args:
        model: a `whence.Model` or a tokenizer.
        slots: "index" (positions numbered from the start), a template's name or text, or None for no names.

    Raises:
        ValueError: there is no tokenizer, it adds tokens after the text, or there is no such template.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from whence.demo import model_path
        >>> encoder = PairEncoder(AutoTokenizer.from_pretrained(model_path()), "simple")
        >>> encoder(PairText("The pilots", " are", "The pilot", " is")).slots
        ('<bos>', 'The', 'subject')
    """

    def __init__(self, model: Any, slots: str | None = None) -> None:
        self.tokenizer = tokenizer_of(model)
        self.unknown = getattr(self.tokenizer, "unk_token_id", None)
        self.encode = cache(self._encode)
        self.front = _special_in_front(self.tokenizer)
        self.numbered = slots == "index"
        self.template = None if slots is None or self.numbered else template(slots)

    @property
    def order(self) -> tuple[str, ...]:
        """The template's slots in the order of its words; () without a template."""
        return () if self.template is None else (*[FRONT] * bool(self.front), *self.template.slots)

    def __call__(self, pair: PairText) -> PairTokens:
        """The tokens of a pair.

        Raises:
            UnusablePair: it cannot be used.
        """
        patched = pair.clean_prefix if pair.patch_prefix is None else pair.patch_prefix
        clean, patch = self._prompt(pair.clean_prefix), self._prompt(patched)
        slots = self._slots(pair.clean_prefix, clean)
        if pair.patch_prefix is not None:
            self._compare(pair, clean, patch, slots)
        clean_answer = self._answer(pair.clean_prefix, pair.clean_answer)
        patch_answer = None if pair.patch_answer is None else self._answer(patched, pair.patch_answer)
        if clean_answer == patch_answer:
            raise UnusablePair(SAME_ANSWER, f"{pair.clean_answer!r} after {pair.clean_prefix!r} and {patched!r}")
        return PairTokens(clean, clean_answer, None if pair.patch_prefix is None else patch, patch_answer, slots)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text).input_ids)

    def _prompt(self, text: str) -> tuple[int, ...]:
        ids = self.encode(text)
        if not ids or (self.unknown is not None and self.unknown in ids[self.front :]):
            raise UnusablePair(UNKNOWN, f"the tokenizer does not know all of {text!r}")
        return ids

    def _answer(self, prefix: str, answer: str) -> int:
        before, whole = self.encode(prefix), self.encode(prefix + answer)
        if whole[:-1] != before:
            raise UnusablePair(ANSWER, f"{answer!r} after {prefix!r} ({len(before)} tokens, {len(whole)} with it)")
        if whole[-1] == self.unknown:
            raise UnusablePair(UNKNOWN, f"the tokenizer does not know the answer {answer!r}")
        return whole[-1]

    def _slots(self, text: str, ids: tuple[int, ...]) -> tuple[str, ...] | None:
        if self.numbered:
            return tuple(str(position) for position in range(len(ids)))
        if self.template is None:
            return None
        slots = slots_of(text, self.encode, self.front, self.template)
        if slots is None:
            raise UnusablePair(UNFIT, f"{text!r} is not {self.template.text!r}")
        return slots

    def _compare(
        self, pair: PairText, clean: tuple[int, ...], patch: tuple[int, ...], slots: tuple[str, ...] | None
    ) -> None:
        both = f"{pair.clean_prefix!r} and {pair.patch_prefix!r}"
        if len(clean) != len(patch):
            raise UnusablePair(LENGTH, f"{both} have {len(clean)} and {len(patch)} tokens")
        if clean == patch:
            raise UnusablePair(SAME_PROMPT, f"{both} are the same tokens")
        if slots != self._slots(str(pair.patch_prefix), patch):
            raise UnusablePair(SHIFTED, f"the words of {both} begin at different tokens")


def tokenizer_of(model: Any) -> Any:
    """The tokenizer of a `whence.Model`, or the tokenizer itself.

    Raises:
        ValueError: the model has none.
    """
    tokenizer = getattr(model, "tokenizer", model)
    if not callable(tokenizer):
        raise ValueError(
            f"pairs from text need a tokenizer, and {model!r} has none: give the model one "
            "(whence.Model(hf_model, tokenizer)), or make whence.Pairs of token ids."
        )
    return tokenizer


def _special_in_front(tokenizer: Any) -> int:
    """How many special tokens come before a text; a tokenizer that adds some after it leaves nothing to predict."""
    plain = tokenizer.encode("The", add_special_tokens=False)
    whole = list(tokenizer("The").input_ids)
    front = len(whole) - len(plain)
    if whole[front:] != list(plain):
        raise ValueError(
            f"{type(tokenizer).__name__} puts special tokens after a text ({whole} for {plain}), where the answer is "
            "to be predicted; load it so that it does not (e.g. add_eos_token=False)."
        )
    return front
