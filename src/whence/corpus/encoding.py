"""Documents as token ids, checked against the model's embedding.

Text is encoded as the tokenizer is set up to do, special tokens included; token ids are taken as they are. To be
packed, texts are told apart by

    the tokens that the tokenizer itself puts around a text ("<bos>" in front, say), if it does so
    else its end token between a text and the next, else its begin token, else nothing

Cost: tokenizing, up to 256 documents or a million characters at a time: so far a stream is read ahead. Knows nothing
of rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.corpus.documents import Document
from whence.model.model import Model

TOGETHER, LARGE = 256, 1 << 20  # documents, characters: enough for a tokenizer written in Rust to use its threads
_MOST = 2**31  # ids are kept in 32 bits


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token ids of a document, or of the next piece of one."""

    ids: Int[Tensor, " token"]
    is_text: bool
    continues: bool


class Encoder:
    """Turns documents into token ids.

    Args:
        source: A `whence.Model`; or a tokenizer, whose ids are then only refused when negative; or None for data that
            are token ids.

    Raises:
        TypeError: Something else.

    Example:
        >>> [found] = Encoder(None)([Document("item 0", torch.tensor([3, 4]))])
        >>> found.ids
        tensor([3, 4])
    """

    def __init__(self, source: Any) -> None:
        is_model = isinstance(source, Model)
        if not is_model and source is not None and not hasattr(source, "eos_token_id"):
            raise TypeError(f"text is encoded by a {type(source).__name__}; it is a whence.Model, a tokenizer, or None")
        self.tokenizer: Any = source.tokenizer if is_model else source
        self.vocab_size: int | None = source._embedded_tokens() if is_model else None

    @property
    def separator(self) -> int | None:
        """What is put between texts that are packed; None for nothing."""
        if self.tokenizer is None or self._encoded([""])[0]:
            return None
        end = self.tokenizer.eos_token_id
        return self.tokenizer.bos_token_id if end is None else end

    def __call__(self, documents: Iterable[Document]) -> Iterator[Tokens]:
        """The documents, in order.

        Raises:
            ValueError: Text without a tokenizer, or an id that the model's embedding does not have.
        """
        for together in _groups(documents):
            yield from self._together(together)

    def _together(self, documents: list[Document]) -> Iterator[Tokens]:
        texts = [document.content for document in documents if isinstance(document.content, str)]
        if texts and self.tokenizer is None:
            raise ValueError("the data are text, but there is no tokenizer; give one, or token ids")
        encoded = iter(self._encoded(texts) if texts else ())
        for document in documents:
            is_text = isinstance(document.content, str)
            ids = torch.as_tensor(next(encoded) if is_text else document.content, dtype=torch.long)
            self._check(ids, document.name)
            yield Tokens(ids, is_text, document.continues)

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        # verbose: a text longer than the model's context is no mistake here, where rows are cut from it.
        return self.tokenizer(texts, return_attention_mask=False, verbose=False).input_ids

    def _check(self, ids: Tensor, name: str) -> None:
        limit = _MOST if self.vocab_size is None else self.vocab_size
        wrong = ((ids < 0) | (ids >= limit)).nonzero()[:, 0]
        if len(wrong):
            place = int(wrong[0])
            raise ValueError(
                f"{name}: token id {int(ids[place])} at {place} is outside 0 to {limit - 1}, which the model embeds; "
                "use data made for its tokenizer"
            )


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.content)
        if len(group) == TOGETHER or size >= LARGE:
            yield group
            group, size = [], 0
    if group:
        yield group
