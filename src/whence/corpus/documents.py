"""The documents of some data, one after the other: texts, or token ids that are taken as they are.

    files                .txt: each line is a document. .jsonl: a field of each line's object. .npy, .safetensors: token
                         ids. A folder: its files of these kinds, in the order of their paths
    "hf:org/name:split"  a dataset of the Hub, streamed (`hub`)
    an iterable          texts, records (mappings with the field), lists or arrays of token ids, `Path`s. A Dataset or
                         IterableDataset of `datasets` is one
    an array             [rows, length]: each row is a document. [tokens]: one long document

A field, too, holds text or token ids. Everything is read when it is asked for, so a stream may be endless. Cost: one
document in memory, of an array a piece. Knows no tokenizer.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.corpus import arrays, files, hub
from whence.model.batch import from_array

HUB = "hf:"


@dataclass(frozen=True, eq=False)
class Document:
    """One document.

    Args:
        name: Where it is, for errors: a file and line, or the number of an item.
        content: Its text, or its token ids [tokens] in any integer type.
        continues: Whether it is the next piece of the document before it.
    """

    name: str
    content: str | Tensor
    continues: bool = False


def documents(data: Any, text_field: str = "text") -> Iterator[Document]:
    """The documents of any data that whence takes, in order.

    Args:
        data: As the module's docstring lists. A string is a path, or a name that begins with "hf:"; texts come in a
            list.
        text_field: The field of a record that holds its text or token ids.

    Raises:
        FileFormatError: A file that cannot be read, naming it and the line.
        TypeError: Another kind of data.
        ValueError: A record without the field, or token ids that are no whole numbers.

    Example:
        >>> [document.content for document in documents(["One.", {"text": "Two."}])]
        ['One.', 'Two.']
    """
    data = from_array(data)
    if isinstance(data, str) and data.startswith(HUB):
        yield from _items(hub.stream(data.removeprefix(HUB)), text_field, data)
    elif isinstance(data, str | Path):
        yield from _of_path(Path(data), text_field)
    elif isinstance(data, Tensor):
        yield from _of_array(arrays.in_memory(data))
    elif isinstance(data, Iterable) and not isinstance(data, bytes | Mapping):
        yield from _items(data, text_field, "the data")
    else:
        keys = f" of {', '.join(map(str, data))} (choose one)" if isinstance(data, Mapping) else ""
        raise TypeError(
            f"data is a {type(data).__name__}{keys}; it is a path, 'hf:org/name', an iterable of texts or records, or "
            "an array of token ids"
        )


def _of_path(path: Path, text_field: str) -> Iterator[Document]:
    for file in files.within(path):
        if file.suffix in files.ARRAYS:
            yield from _of_array(arrays.in_file(file))
            continue
        for number, line in files.lines(file):
            name = f"{file}, line {number}"
            found = files.record(line, name) if file.suffix in files.RECORDS else line
            yield Document(name, _content(found, text_field, name))


def _of_array(array: arrays.Array) -> Iterator[Document]:
    for number, ids in enumerate(array):
        if array.is_long:
            yield Document(array.name, ids, continues=number > 0)
        else:
            yield Document(f"{array.name}, row {number}", ids)


def _items(data: Iterable[Any], text_field: str, source: str) -> Iterator[Document]:
    for number, item in enumerate(data):
        name = f"{source}, item {number}"
        if isinstance(item, Path):
            yield from _of_path(item, text_field)
            continue
        if isinstance(item, str) and item.endswith(files.KNOWN) and Path(item).is_file():
            # It would be taken for a text of one line, and nobody would notice.
            raise ValueError(f"{name} is {item!r}, which is a file; give pathlib.Path({item!r}), or one path alone")
        yield Document(name, _content(item, text_field, name))


def _content(item: Any, text_field: str, name: str) -> str | Tensor:
    """The text or the token ids of an item, or of its field."""
    if isinstance(item, Mapping):
        if text_field not in item:
            fields = ", ".join(map(str, item)) or "nothing"
            raise ValueError(f"{name} has no field {text_field!r}; it has: {fields}. Name the field with text_field")
        item = item[text_field]
    if isinstance(item, str):
        # A blank text has no tokens, not even those that a tokenizer would put around it.
        return item if item.strip() else torch.empty(0, dtype=torch.long)
    if isinstance(item, list | tuple) and all(type(id) is int for id in item):
        item = torch.tensor(item, dtype=torch.long)
    item = from_array(item)
    if not isinstance(item, Tensor) or item.ndim != 1:
        raise TypeError(f"{name} is a {type(item).__name__}; a document is text, or one list of token ids")
    return arrays.whole_numbers(item, name)
