"""Text files and JSON lines, read a line at a time; and which files a path stands for.

Lines are UTF-8, of at most 16 MiB; blank ones are passed over. Cost: one line in memory. Knows no tokens.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError

MAX_LINE_BYTES = 1 << 24
TEXTS, RECORDS, ARRAYS = (".txt",), (".jsonl",), (".npy", ".safetensors")
KNOWN = (*TEXTS, *RECORDS, *ARRAYS)


def within(path: Path) -> list[Path]:
    """The files that a path stands for: itself, or those below a folder, by their paths; hidden ones are left out.

    Raises:
        FileFormatError: There is no such path, no file of a known kind in the folder, or it is of another kind.

    Example:
        >>> within(Path("texts"))  # doctest: +SKIP
        [PosixPath('texts/a.jsonl'), PosixPath('texts/b.txt')]
    """
    kinds = ", ".join(KNOWN)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if file.suffix in KNOWN and file.is_file()]
        found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not found:
            raise FileFormatError(f"{path} holds no file of these kinds: {kinds}.")
        return found
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file. Check the path; texts are given in a list.")
    if path.suffix not in KNOWN:
        raise FileFormatError(f"{path} ends in {path.suffix!r}; data are read from {kinds}. Convert or rename it.")
    return [path]


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, without their ends, and their numbers, counted from 1.

    Raises:
        FileFormatError: A line that is too long or not UTF-8.

    Example:
        >>> list(lines(Path("a.txt")))  # doctest: +SKIP
        [(1, 'One line.'), (3, 'Another.')]
    """
    with file.open("rb") as stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise FileFormatError(
                    f"{file}, line {number} is longer than {MAX_LINE_BYTES} bytes; write one document a line."
                )
            text = _decoded(raw, f"{file}, line {number}").rstrip("\r\n")
            text = text.removeprefix("\ufeff") if number == 1 else text
            if text.strip():
                yield number, text


def record(line: str, name: str) -> dict[str, Any]:
    """The object of one JSON line.

    Args:
        line: Its text.
        name: Its file and number, for errors.

    Raises:
        FileFormatError: No JSON, or no object.

    Example:
        >>> record('{"text": "One."}', "a.jsonl, line 1")
        {'text': 'One.'}
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{name} is not JSON ({error}); each line is one object.") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{name} is a {type(found).__name__}; each line is one object.")
    return found


def _decoded(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        seen = f"byte {raw[error.start]:#04x} at {error.start}"
        raise FileFormatError(f"{name} is not UTF-8 ({seen}). Convert the file to UTF-8.") from error
