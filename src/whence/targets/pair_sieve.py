"""Pairs that can be used, told from those that cannot, each with its reason. Cost: that of encoding them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from whence.targets.pair_lines import PairText
from whence.targets.pair_tokens import PairEncoder, PairTokens, UnusablePair


@dataclass(frozen=True, slots=True)
class Sifted:
    """The pairs that can be used as tokens and as text; the others by reason: which one it was, and what was seen."""

    tokens: list[PairTokens] = field(default_factory=list[PairTokens])
    texts: list[PairText] = field(default_factory=list[PairText])
    refused: dict[str, list[tuple[int, str]]] = field(default_factory=dict[str, list[tuple[int, str]]])

    @property
    def dropped(self) -> dict[str, int]:
        """How many pairs each reason ruled out."""
        return {reason: len(seen) for reason, seen in self.refused.items()}

    @property
    def account(self) -> str:
        """The counts in words."""
        return ", ".join(f"{reason} ({count})" for reason, count in self.dropped.items()) or "none"


def sift(encoder: PairEncoder, texts: Iterable[PairText], wanted: int | None = None) -> Sifted:
    """Encode pairs until as many as are wanted can be used, or none is left.

    Args:
        encoder: turns them into tokens.
        texts: the pairs.
        wanted: how many; None for all that can be used.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from whence.demo import model_path
        >>> encoder = PairEncoder(AutoTokenizer.from_pretrained(model_path()))
        >>> sift(encoder, [PairText("The pilots", " are"), PairText("The xylophones", " are")]).dropped
        {'unknown word': 1}
    """
    sifted = Sifted()
    for number, text in enumerate(texts):
        if len(sifted.tokens) == wanted:
            break
        try:
            sifted.tokens.append(encoder(text))
            sifted.texts.append(text)
        except UnusablePair as error:
            sifted.refused.setdefault(error.reason, []).append((number, str(error)))
    return sifted
