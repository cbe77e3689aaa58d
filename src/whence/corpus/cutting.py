"""Documents of token ids as rows of one length.

    packed: the documents follow one another and are cut every `length` tokens; the last row may be shorter
    apart:  a document a row; what is longer is cut off, what is shorter leaves the rest of the row empty

A row's attention does not know where, in a packed row, one document ends and the next begins. Empty places hold 0.
Cost: copying the tokens. Knows no tokenizer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from whence.corpus.encoding import Tokens


@dataclass
class Tally:
    """What became of the documents so far."""

    documents: int = 0
    empty: int = 0
    tokens_cut: int = 0


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows, and how many of each row's tokens are real."""

    ids: Int[Tensor, "row length"]
    lengths: Int[Tensor, " row"]

    def __getitem__(self, rows: slice) -> "Block":
        """Some of the rows."""
        return Block(self.ids[rows], self.lengths[rows])


def packed(documents: Iterable[Tokens], length: int, separator: int | None, tally: Tally) -> Iterator[Block]:
    """Rows from documents that follow one another.

    Args:
        documents: In order.
        length: Of a row.
        separator: The token put before each text but the first; None for none. Token ids are joined as they are.
        tally: Where the documents are counted.

    Example:
        >>> ids = torch.tensor([5, 6, 7])
        >>> [block.ids.tolist() for block in packed([Tokens(ids, True, False)] * 2, 4, 1, Tally())]
        [[[5, 6, 7, 1]], [[5, 6, 7, 0]]]
    """
    rest = torch.empty(0, dtype=torch.long)
    between = torch.tensor([] if separator is None else [separator], dtype=torch.long)
    for document in _counted(documents, tally):
        first = tally.documents == 1
        joined = torch.cat([rest, between, document.ids] if document.is_text and not first else [rest, document.ids])
        whole = len(joined) - len(joined) % length
        if whole:
            rows = joined[:whole].view(-1, length)
            yield Block(rows, torch.full((len(rows),), length))
        rest = joined[whole:]
    if len(rest):
        yield _padded(rest, length)


def apart(documents: Iterable[Tokens], length: int, tally: Tally) -> Iterator[Block]:
    """A row from each document, cut at `length`.

    Args:
        documents: In order.
        length: Of a row.
        tally: Where the documents, and the tokens cut off, are counted.

    Example:
        >>> [block.ids.tolist() for block in apart([Tokens(torch.tensor([5, 6]), True, False)], 3, Tally())]
        [[[5, 6, 0]]]
    """
    for document in _counted(documents, tally):
        kept = document.ids[: 0 if document.continues else length]
        tally.tokens_cut += len(document.ids) - len(kept)
        if len(kept):
            yield _padded(kept, length)


def _counted(documents: Iterable[Tokens], tally: Tally) -> Iterator[Tokens]:
    for document in documents:
        if not len(document.ids):
            tally.empty += 1
            continue
        tally.documents += not document.continues
        yield document


def _padded(ids: Tensor, length: int) -> Block:
    return Block(pad(ids, (0, length - len(ids)))[None], torch.tensor([len(ids)]))
