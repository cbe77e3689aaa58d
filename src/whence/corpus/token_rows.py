"""Prepared data: rows of token ids on disk, numbered batches of them, and what they were made of.

    path/result.json                  sizes, where the data came from, the sha256 of the file beside it
    path/tensors-<sha256>.safetensors the rows (`row_file`)

Batch i of size b takes places i b, …, i b + b - 1 of the stored order, whoever asks: every process that opens the
folder sees the same batches. Cost: of opening, some kilobytes; of a batch, its own rows. Knows no text.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whence.corpus.row_file import Layout, Reader
from whence.errors import FileFormatError
from whence.results import manifest, store

KIND = "token_rows"
_SIZES = ("rows", "sequence_length", "distinct", "tokens")


def file_name(fingerprint: str) -> str:
    """What the file of rows is called, as every file of a result is."""
    return f"tensors-{str(fingerprint)[:16]}.safetensors"


class RowBatch(NamedTuple):
    """Token ids padded with 0 to the longest row of the batch, how many of each row are real, and which rows."""

    ids: Int[Tensor, "example pos"]
    lengths: Int[Tensor, " example"]
    numbers: Int[Tensor, " example"]


class TokenRows:
    """Rows of token ids, read from disk in part; made by `whence.corpus.prepare.prepare`.

    Args:
        path: The folder.
        said: Its manifest.

    Attributes:
        about: What the rows were made of and how: data, tokenizer, separator, seed, documents, dropped; JSON's types.
        fingerprint: sha256 of the file: of tokens, lengths and order.
    """

    def __init__(self, path: Path, said: dict[str, Any]) -> None:
        try:
            sizes, self.about = said["meta"]["sizes"], said["meta"]["about"]
            self.rows, self.sequence_length, distinct, self.tokens = (int(sizes[key]) for key in _SIZES)
            ((name, self.fingerprint),) = said["files"].items()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{path / manifest.NAME} does not describe rows of tokens.") from error
        if name != file_name(self.fingerprint):
            raise FileFormatError(f"{path / manifest.NAME} names a file {name!r}, which is not a name whence gives.")
        self.path, self._distinct = path, distinct
        self._reader = Reader(path / name, Layout(self.rows, self.sequence_length, distinct))

    @classmethod
    def open(cls, path: str | Path) -> "TokenRows":
        """The rows that `prepare` wrote.

        Args:
            path: The folder.

        Raises:
            FileFormatError: Not a folder of prepared rows, or an incomplete one; prepare it again.

        Example:
            >>> TokenRows.open("runs/stories/tokens").rows  # doctest: +SKIP
            10000
        """
        said = manifest.load(Path(path))
        if said.get("kind") != KIND:
            raise FileFormatError(f"{path} holds a result of kind {said.get('kind')!r}, and {KIND!r} is wanted here.")
        return cls(Path(path), said)

    def __repr__(self) -> str:
        """One line: sizes and place."""
        return f"TokenRows({self.rows} rows of {self.sequence_length}, {self.tokens} tokens, {str(self.path)!r})"

    @property
    def seen(self) -> Int[Tensor, " distinct"]:
        """The different tokens of all rows, ascending."""
        return self._reader.numbers("seen", 0, self._distinct)

    @property
    def longest(self) -> int:
        """How many tokens the longest row has; as many as there is room for, or fewer."""
        return int(self._reader.numbers("lengths", 0, self.rows).max())

    def verify(self) -> None:
        """Read the whole file and compare it with its fingerprint.

        Raises:
            FileFormatError: It was changed.
        """
        store.locate(self.path, KIND)

    def row(self, number: int) -> Int[Tensor, " pos"]:
        """The tokens of a row; rows are numbered as the data came, whatever the order of the batches.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= number < self.rows:
            raise IndexError(f"row {number} is outside 0 to {self.rows - 1}")
        return self._rows([number])[0]

    def batches(self, batch_size: int) -> int:
        """How many batches of this size there are; the last may be smaller.

        Raises:
            ValueError: The size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is at least 1")
        return -(-self.rows // batch_size)

    def batch(self, number: int, batch_size: int) -> RowBatch:
        """One batch, by its number among all of them.

        Args:
            number: From 0.
            batch_size: Rows in a batch.

        Raises:
            IndexError: There is no such batch.
            ValueError: The size is below 1.

        Example:
            >>> TokenRows.open("runs/stories/tokens").batch(0, 32).ids.shape  # doctest: +SKIP
            torch.Size([32, 512])
        """
        count = self.batches(batch_size)
        if not 0 <= number < count:
            raise IndexError(f"batch {number} is outside 0 to {count - 1}: {self.rows} rows in batches of {batch_size}")
        numbers = self._reader.numbers("order", number * batch_size, min((number + 1) * batch_size, self.rows))
        rows = self._rows(numbers.tolist())
        return RowBatch(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]), numbers)

    def _rows(self, numbers: list[int]) -> list[Tensor]:
        lengths = self._reader.parts("lengths", [(number, number + 1) for number in numbers])
        starts = [number * self.sequence_length for number in numbers]
        return self._reader.parts("tokens", [(at, at + int(of)) for at, of in zip(starts, lengths, strict=True)])
