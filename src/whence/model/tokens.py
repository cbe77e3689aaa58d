"""Tokens between text and ids, by the tokenizer's own rules and without guesses.

A string names a token only if it encodes to exactly that token; a token's text keeps the leading space that
`tokenizer.decode([id])` drops. That text is found for any kind of tokenizer from the token doubled:
decode([id, id]) without its beginning decode([id]) is what the token adds after other text.
Cost: one encode a string, two decodes a text. Knows nothing of prompts, batches or models.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

_SHOWN = 8  # tokens of a split quoted in an error: enough to recognise the text, short enough to read


def token_id(tokenizer: Any, vocab_size: int, token: str | SupportsIndex) -> int:
    """The id that a token's text, or an id given as any integer, stands for.

    Args:
        tokenizer: a transformers tokenizer, or None when only ids are known.
        vocab_size: number of logits of the model, which can exceed the tokenizer's vocabulary.
        token: text that is exactly one token (special tokens such as "<bos>" included), or an id from 0 to
            vocab_size - 1 (a Python or numpy integer, or a tensor holding one).

    Raises:
        ValueError: the text is empty, several tokens or unknown to the tokenizer (the message shows the split and
            a token to give instead), there is no tokenizer for it, or the id is out of range.
        TypeError: neither text nor an integer; True and False are not ids.

    Example:
        >>> token_id(None, 50257, 262)
        262
    """
    if isinstance(token, str):
        return _within(_encoded(tokenizer, token), vocab_size, f"{token!r}: ")
    if isinstance(token, bool) or (isinstance(token, Tensor) and token.dtype == torch.bool):
        raise TypeError(f"a token is a string or an integer id, not the boolean {token!r}.")
    try:
        return _within(operator.index(token), vocab_size)
    except TypeError:
        raise TypeError(f"a token is a string or an integer id; got {token!r} ({type(token).__name__}).") from None


def token_text(tokenizer: Any, id: int) -> str:
    """The text a token adds to the text before it, its leading space included.

    Args:
        tokenizer: a transformers tokenizer, or None: then the text is the id's digits.
        id: the token; one that the tokenizer does not know gives a text like "<id 50300>". Bytes that are not a
            whole character come back as "\N{REPLACEMENT CHARACTER}".

    Example:
        >>> token_text(None, 262)
        '262'
    """
    if tokenizer is None:
        return str(id)
    piece = _piece(tokenizer, id)
    if piece is None:
        return f"<id {id}>"
    if id in tokenizer.all_special_ids:
        return piece  # tokenizers disagree on spaces around special tokens, and none belongs to the token
    once, twice = (tokenizer.decode([id] * n, clean_up_tokenization_spaces=False) for n in (1, 2))
    text = twice.removeprefix(once) if twice.startswith(once) else once
    return text or piece  # a label must show something


def tokens_text(tokenizer: Any, ids: Iterable[SupportsIndex]) -> tuple[str, ...]:
    """The texts of several tokens, in order; see `token_text`.

    Example:
        >>> tokens_text(None, [5, 262])
        ('5', '262')
    """
    return tuple(token_text(tokenizer, operator.index(id)) for id in ids)


def _encoded(tokenizer: Any, token: str) -> int:
    """The one id that text encodes to."""
    if tokenizer is None:
        raise ValueError(f"there is no tokenizer to look up {token!r} with: give token ids, or the model a tokenizer.")
    if not token:
        raise ValueError("'' is an empty string, not a token: give one token or an id.")
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"{token!r} is {len(ids)} tokens here{_split(tokenizer, ids)}. {_advice(tokenizer, token, ids)}"
        )
    # A lone "<unk>" may be meant: only other text that becomes it is a mistake.
    if ids[0] == tokenizer.unk_token_id and token.strip() != tokenizer.unk_token:
        text = f"{token!r} is not in the vocabulary (it becomes {tokenizer.unk_token!r})"
        raise ValueError(f"{text}. {_advice(tokenizer, token, [])}")
    return ids[0]


def _split(tokenizer: Any, ids: Sequence[int]) -> str:
    shown = [repr(text) for text in tokens_text(tokenizer, ids[:_SHOWN])]
    return ": " * bool(ids) + " | ".join(shown + ["…"] * (len(ids) > _SHOWN))


def _advice(tokenizer: Any, token: str, ids: Sequence[int]) -> str:
    """What to give instead: the word with or without its space, the id if only an id can say it, or a part of it."""
    other = token[1:] if token.startswith(" ") else f" {token}"
    if _is_known_word(tokenizer, other):
        return f"Did you mean {other!r}? That is one token."
    parts = tokens_text(tokenizer, ids[:_SHOWN])
    if len(ids) == 2 and parts[1] == token:
        return f"Inside a text it is one token: give its id, {ids[1]}."
    example = next((text for text in parts if _is_known_word(tokenizer, text)), None)
    return f"Give one token{f' (e.g. {example!r})' if example else ''} or an id."


def _is_known_word(tokenizer: Any, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False) if text.strip() else []
    return len(ids) == 1 and ids[0] != tokenizer.unk_token_id


def _piece(tokenizer: Any, id: int) -> str | None:
    """The vocabulary entry of an id; None where there is none."""
    try:
        piece = tokenizer.convert_ids_to_tokens(id)
    except (IndexError, KeyError, OverflowError):  # tokenizers written in Python raise, each in its own way
        return None
    # Others answer with the unknown token, which would give the id somebody else's name.
    return None if piece == tokenizer.unk_token and id != tokenizer.unk_token_id else piece


def _within(id: int, vocab_size: int, whose: str = "") -> int:
    if not 0 <= id < vocab_size:
        raise ValueError(f"{whose}token id {id} is outside 0 to {vocab_size - 1}: the model has {vocab_size} logits.")
    return id
