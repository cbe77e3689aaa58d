"""From data to prepared rows: documents are read, tokenized, cut into rows and written, each as the next asks for it.

Memory: some hundred documents, and a hundred bytes a row for their order. Time: tokenizing. Knows no model but what it
embeds.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whence.corpus import files
from whence.corpus.cutting import Block, Tally, apart, packed
from whence.corpus.documents import HUB, documents
from whence.corpus.encoding import Encoder
from whence.corpus.token_rows import TokenRows
from whence.corpus.writing import write
from whence.errors import FileFormatError
from whence.progress import Progress, silent


def prepare(
    data: Any,
    tokenizer_or_model: Any,
    out: str | Path,
    *,
    sequence_length: int,
    rows: int | None = None,
    seed: int | None = 0,
    pack: bool = True,
    text_field: str = "text",
    progress: Progress = silent,
) -> TokenRows:
    """Write data as rows of tokens, once, for any number of processes to read.

    Args:
        data: Text files (.txt: each line a document; .jsonl), arrays of token ids (.npy, .safetensors), a folder of
            such files, "hf:org/name:split", an iterable of texts, records or lists of ids, an array.
        tokenizer_or_model: A `whence.Model`, whose embedding must then have every token; a tokenizer; None for ids.
        out: The folder to make.
        sequence_length: Tokens in a row.
        rows: Stop at so many rows, reading no further; None reads all data.
        seed: Of the order in which batches take the rows; None for the order of the data. It draws no sample: with
            `rows`, they are the first ones.
        pack: Put documents one after the other and cut (`whence.corpus.cutting`); else a row holds one document.
        text_field: The field of JSON lines and records that holds the text, or token ids.
        progress: Called as ("rows", done, rows), with 0 for an unknown number.

    Raises:
        FileFormatError: A file that cannot be read (the message names its line), or `out` holds something already.
        TypeError: Another kind of data.
        ValueError: No tokens at all, tokens that the model does not embed, a number below 1.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = prepare([[5, 6, 7], [8, 9]], None, folder + "/tokens", sequence_length=4)
        >>> rows.rows, rows.row(0).tolist(), rows.row(1).tolist()
        (2, [5, 6, 7, 8], [9])
    """
    _check(Path(out), sequence_length=sequence_length, rows=rows)
    encoder, tally = Encoder(tokenizer_or_model), Tally()
    encoded = encoder(documents(data, text_field))
    separator = encoder.separator if pack else None
    cut = packed(encoded, sequence_length, separator, tally) if pack else apart(encoded, sequence_length, tally)
    about: dict[str, Any] = {
        "data": described(data),
        "text_field": text_field,
        "tokenizer": getattr(encoder.tokenizer, "name_or_path", None),
        "pack": pack,
        "separator": separator,
        "rows_asked": rows,
        "seed": seed,
    }
    return write(Path(out), _first(cut, rows, progress), about, tally)


def described(data: Any) -> str | list[dict[str, Any]]:
    """What the record says of the data: names and sizes of files, a name on the Hub, or the kind of object."""
    if isinstance(data, str) and data.startswith(HUB):
        return data
    if isinstance(data, str | Path):
        data = [Path(data)]
    if isinstance(data, list | tuple) and data and all(isinstance(path, Path) for path in data):
        return [{"file": str(file), "bytes": file.stat().st_size} for path in data for file in files.within(path)]
    return type(data).__name__


def _check(out: Path, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; it is at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileFormatError(f"{out} exists already. Open it with TokenRows.open, or choose another path.")


def _first(blocks: Iterable[Block], rows: int | None, progress: Progress) -> Iterator[Block]:
    """The blocks up to a number of rows; the next one is not asked for."""
    made = 0
    for block in blocks:
        block = block[: None if rows is None else rows - made]
        made += len(block.lengths)
        progress("rows", made, rows or 0)
        yield block
        if made == rows:
            return
