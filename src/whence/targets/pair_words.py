"""From the tokens of a pair back to text that gives the same tokens again, or no text at all.

Special tokens in front are left off, and so is a leading space that the tokenizer adds by itself. Cost: one decoding
and up to two encodings a prompt. Knows nothing of files.
"""

from typing import Any

from whence.targets.pair_lines import PairText
from whence.targets.pair_tokens import PairEncoder

Ids = tuple[int, ...]


class PairDecoder:
    """Turns the tokens of pairs into text by one tokenizer.

    Args:
        model: a `whence.Model` or a tokenizer.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from whence.demo import model_path
        >>> tokenizer = AutoTokenizer.from_pretrained(model_path())
        >>> prompt, answer = tokenizer("The pilots are").input_ids[:-1], tokenizer("The pilots are").input_ids[-1]
        >>> PairDecoder(tokenizer)(0, tuple(prompt), answer, None, None, "plural").clean_answer
        ' are'
    """

    def __init__(self, model: Any) -> None:
        self.encoder = PairEncoder(model)

    def __call__(
        self, number: int, clean: Ids, answer: int, patch: Ids | None, patch_answer: int | None, case: str
    ) -> PairText:
        """The text of a pair.

        Raises:
            ValueError: no text gives these tokens; the message names the pair by its number.
        """
        prefix = self._prompt(number, clean)
        patched = prefix if patch is None else self._prompt(number, patch)
        return PairText(
            clean_prefix=prefix,
            clean_answer=self._answer(number, prefix, clean, answer),
            patch_prefix=None if patch is None else patched,
            patch_answer=None if patch_answer is None else self._answer(number, patched, patch or clean, patch_answer),
            case=case,
        )

    def _prompt(self, number: int, ids: Ids) -> str:
        text = self._decoded(ids[self.encoder.front :])
        for way in (text.removeprefix(" "), text):
            if self.encoder.encode(way) == ids:
                return way
        raise ValueError(f"pair {number}: its tokens read {text!r}, but that text gives other tokens; keep the ids.")

    def _answer(self, number: int, prefix: str, ids: Ids, answer: int) -> str:
        whole = self._decoded((*ids[self.encoder.front :], answer))
        text = whole[whole.find(prefix) + len(prefix) :]
        if self.encoder.encode(prefix + text) != (*ids, answer):
            raise ValueError(
                f"pair {number}: {text!r} after {prefix!r} is not its answer, token {answer}; keep the ids."
            )
        return text

    def _decoded(self, ids: Ids) -> str:
        return self.encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
