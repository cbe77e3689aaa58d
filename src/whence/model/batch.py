"""Prompts as one right-padded batch, and positions as rows of it.

Padding on the right with a causal model leaves every real token's computation untouched, whatever the attention or
recurrence: no position ids to shift, no pad token needed. A left-padded encoding is re-packed. "The last token" is the
last real token of each prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, SupportsIndex, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Position: TypeAlias = SupportsIndex | Iterable[SupportsIndex] | None  # one, several, or all

MAX_TOKENS = 1 << 22  # of a whole batch: a wrong argument shows before memory is gone


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids padded on the right, and how many of each row are real."""

    ids: Int[Tensor, "example pos"]
    lengths: Int[Tensor, " example"]

    @property
    def mask(self) -> Bool[Tensor, "example pos"]:
        """True at real tokens."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    @property
    def ragged(self) -> bool:
        """Whether some prompt is shorter than another."""
        return bool((self.lengths != self.ids.shape[1]).any())

    def rows(self, position: Any) -> Int[Tensor, "example asked"]:
        """Absolute positions asked for; -1 stands where a shorter prompt has no token (only for `position=None`).

        Args:
            position: one position, several, or None for all. Negative ones count from each prompt's own end.

        Raises:
            TypeError: no whole number.
            ValueError: a position outside a prompt, naming the prompt and its length.
        """
        position = positions_of(position)
        everything = torch.arange(self.ids.shape[1], device=self.ids.device).expand_as(self.ids)
        if position is None:
            return torch.where(self.mask, everything, -1)
        asked = [position] if isinstance(position, int) else position
        columns: list[Tensor] = []
        for one in asked:
            column = self.lengths + one if one < 0 else torch.full_like(self.lengths, one)
            outside = (column < 0) | (column >= self.lengths)
            if outside.any():
                row = int(outside.nonzero()[0])
                raise ValueError(f"position {one} is outside prompt {row}, which has {int(self.lengths[row])} tokens")
            columns.append(column)
        return torch.stack(columns, dim=1)


def positions_of(given: Any) -> int | list[int] | None:
    """The position or positions asked for, as plain ints.

    Args:
        given: None, an int of any kind, or several (a sequence, array or 1-D tensor).

    Raises:
        TypeError: something that is no whole number.
        ValueError: no position at all.
    """
    if given is None:
        return None
    single = _whole(given)
    if single is not None:
        return single
    several = [_whole(one) for one in given] if isinstance(given, Iterable) and not isinstance(given, str) else [None]
    if any(one is None for one in several):
        raise TypeError(f"position is {given!r}; it is an int, several ints, or None for all positions")
    if not several:
        raise ValueError("position is an empty list; pass an int, several ints, or None for all positions")
    return [one for one in several if one is not None]


def _whole(value: Any) -> int | None:
    """A whole number of any library as an int; None for anything else, truth values included."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and (value.ndim or value.dtype == torch.bool)):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def pack(rows: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> Batch:
    """The batch of these token ids; the model's embedding must have every one of them.

    Raises:
        ValueError: no prompt, an empty prompt, an id outside the vocabulary, or an unreasonable size.
    """
    if not rows:
        raise ValueError("no prompt was given")
    longest = max(len(row) for row in rows)
    if len(rows) * longest > MAX_TOKENS:
        raise ValueError(f"{len(rows)} prompts of up to {longest} tokens exceed {MAX_TOKENS} tokens; split the batch")
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        if not row:
            raise ValueError(f"prompt {number} has no tokens")
        worst = next((token for token in row if not 0 <= token < vocab_size), None)
        if worst is not None:
            raise ValueError(f"prompt {number} holds token id {worst}; this model has ids 0 to {vocab_size - 1}")
        ids[number, : len(row)] = torch.tensor(row)
    return Batch(ids.to(device), torch.tensor([len(row) for row in rows], device=device))


def from_array(value: Any) -> Any:
    """An array of another library as a tensor, without importing that library; anything else as it is."""
    return torch.as_tensor(value) if hasattr(value, "__array__") and not isinstance(value, Tensor) else value


def token_rows(value: Any, tokenizer: Any) -> list[list[int]]:
    """The token ids of each prompt, for every kind of input whence takes.

    Args:
        value: a string, a list of strings, one list of ids, a list of such lists, a 1-D or 2-D integer tensor, or what
            a tokenizer returns (`input_ids` and `attention_mask`, padded on either side).
        tokenizer: turns strings into ids, special tokens included as it is set up to do; None where there is none.

    Raises:
        TypeError: another kind of input.
        ValueError: text without a tokenizer.
    """
    if isinstance(value, str):
        return token_rows([value], tokenizer)
    if isinstance(value, Mapping):
        return _encoded_rows(value)
    value = from_array(value)
    if isinstance(value, Tensor):
        if value.dtype.is_floating_point or value.dtype == torch.bool or value.ndim not in (1, 2):
            raise TypeError(f"input is a {value.ndim}-D tensor of {value.dtype}; expected 1-D or 2-D token ids")
        return [value.tolist()] if value.ndim == 1 else value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        items: list[Any] = list(value)
        if items and all(isinstance(item, str) for item in items):
            if tokenizer is None:
                raise ValueError("the input is text but the model has no tokenizer; pass token ids, or give one")
            return [list(tokenizer(item).input_ids) for item in items]
        ids = [_whole(item) for item in items]
        if all(token is not None for token in ids):
            return [[token for token in ids if token is not None]]
        if all(isinstance(item, Sequence | Tensor) and not isinstance(item, str) for item in items):
            return [row for item in items for row in token_rows(item, tokenizer)]
    raise TypeError(f"input is {type(value).__name__}; expected a string, a list of strings, or token ids")


def _encoded_rows(encoding: Mapping[str, Any]) -> list[list[int]]:
    if "input_ids" not in encoding:
        raise ValueError(
            f"the input is a mapping without 'input_ids'; it has: {', '.join(map(str, encoding)) or 'nothing'}"
        )
    rows = token_rows(encoding["input_ids"], None)
    if "attention_mask" not in encoding:
        return rows
    masks = token_rows(encoding["attention_mask"], None)
    pairs = zip(rows, masks, strict=True)
    return [[token for token, keep in zip(row, mask, strict=True) if keep] for row, mask in pairs]
