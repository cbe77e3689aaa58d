"""Pairs of prompts as text, and the JSON-lines files that hold them, one pair a line.

    {"clean_prefix": "The parents", "patch_prefix": "The parent", "clean_answer": " are", "patch_answer": " is",
     "case": "plural"}

The patch side and `case` may be missing, but every line has the fields of the first one; other fields are passed
over. Lines of more than 64 KiB and files of more than a million lines are refused. Cost: one read. Knows no tokens.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError

MAX_LINE_BYTES = 1 << 16
MAX_LINES = 1_000_000
_REQUIRED = ("clean_prefix", "clean_answer")
_FIELDS = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case")


@dataclass(frozen=True, slots=True)
class PairText:
    """One pair as text; answers carry their leading space. None stands where there is no patch side."""

    clean_prefix: str
    clean_answer: str
    patch_prefix: str | None = None
    patch_answer: str | None = None
    case: str = ""


def read_lines(path: str | Path) -> list[tuple[int, PairText]]:
    """The pairs of a file with the numbers of their lines, counted from 1; blank lines are passed over.

    Args:
        path: of a JSON-lines file.

    Raises:
        FileFormatError: a line that is no pair, lacks a field that the first one has, or is too long.

    Example:
        >>> read_lines("pairs.json")[0]  # doctest: +SKIP
        (1, PairText(clean_prefix='The parents', clean_answer=' are', ...))
    """
    found: list[tuple[int, PairText]] = []
    fields: frozenset[str] | None = None
    for number, line in _lines(Path(path)):
        record = _record(line, f"{path}, line {number}")
        fields = fields or frozenset(record)
        if fields != record.keys():
            uneven = ", ".join(sorted(fields ^ record.keys()))
            raise FileFormatError(
                f"{path}, line {number} and the first line differ in whether they have {uneven}: every pair of a file "
                "needs the same fields. Complete them, or split the file."
            )
        found.append((number, PairText(**record)))
    return found


def write_lines(path: str | Path, pairs: Iterable[PairText]) -> None:
    """Write pairs as JSON lines; the file appears whole or not at all.

    Args:
        path: to write to; a file there is replaced.
        pairs: one a line.

    Example:
        >>> write_lines("pairs.json", [PairText("The parents", " are", "The parent", " is")])  # doctest: +SKIP
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.writelines(_line(pair) for pair in pairs)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _line(pair: PairText) -> str:
    record = asdict(pair)
    said = {field: record[field] for field in _FIELDS if record[field] is not None}
    return json.dumps(said, ensure_ascii=False) + "\n"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise FileFormatError(
                    f"{path}, line {number} is longer than {MAX_LINE_BYTES} bytes: a file of pairs has one JSON object "
                    "a line. Write a JSON array as one object a line."
                )
            if number > MAX_LINES:
                raise FileFormatError(f"{path} has more than {MAX_LINES} lines; split it.")
            if line.strip():
                yield number, line


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{where} is not JSON ({error}); each line is one object.") from error
    if not isinstance(record, dict):
        raise FileFormatError(f"{where} is a {type(record).__name__}; each line is an object with {_REQUIRED}.")
    known = {field: record[field] for field in _FIELDS if record.get(field) is not None}
    missing = [field for field in _REQUIRED if field not in known]
    if missing:
        raise FileFormatError(f"{where} has no {' and no '.join(missing)}; it has: {', '.join(record) or 'nothing'}.")
    wrong = next((field for field, value in known.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise FileFormatError(f"{where}: {wrong} is {known[wrong]!r}, not text.")
    return known
