"""Rows written once, as a folder that appears whole or not at all.

The rows lie in the order of the data; the order in which batches take them is stored beside them. A seed sorts them by

    blake2b(seed, row)

the same on every machine and in every version. Cost: writing, and reading once for the checksum. Knows no documents.
"""

import hashlib
import logging
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whence.corpus.cutting import Block, Tally
from whence.corpus.row_file import Writer
from whence.corpus.token_rows import KIND, TokenRows, file_name
from whence.results import manifest
from whence.results.store import sync

logger = logging.getLogger(__name__)


def order(rows: int, seed: int | None) -> list[int]:
    """The rows in the order in which batches take them.

    Args:
        rows: How many there are.
        seed: None keeps their order.

    Example:
        >>> order(5, 0), order(3, None)
        ([2, 4, 1, 0, 3], [0, 1, 2])
    """
    if seed is None:
        return list(range(rows))
    return sorted(range(rows), key=lambda row: hashlib.blake2b(f"{seed} {row}".encode(), digest_size=8).digest())


def write(out: Path, blocks: Iterable[Block], about: dict[str, Any], tally: Tally) -> TokenRows:
    """The rows on disk, opened.

    Args:
        out: The folder to make; its parent is made when missing.
        blocks: The rows, taken one block at a time.
        about: What they were made of; its "seed" is that of the order.
        tally: What became of the documents, complete when the blocks are.

    Raises:
        ValueError: There is no row.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.parent / f".{out.name}.{uuid.uuid4().hex}.tmp"
    try:
        fresh.mkdir()
        sizes, name, digest = _tokens(fresh, blocks, about["seed"])
        meta = {"sizes": sizes, "about": about | asdict(tally)}
        (fresh / manifest.NAME).write_text(manifest.to_text(KIND, meta, {name: digest}), encoding="ascii")
        for path in (fresh / name, fresh / manifest.NAME, fresh):
            sync(path)
        fresh.rename(out)
        sync(out.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    found = TokenRows.open(out)
    logger.info("%r: %s", found, tally)
    return found


def _tokens(folder: Path, blocks: Iterable[Block], seed: int | None) -> tuple[dict[str, int], str, str]:
    """Write the file of rows: its sizes, name and sha256."""
    draft = folder / "draft"
    with draft.open("wb") as file:
        writer = Writer(file)
        for block in blocks:
            writer.add(block)
        if not writer.rows:
            raise ValueError("the data hold no tokens; give documents that are not empty")
        layout = writer.finish(order(writer.rows, seed))
    with draft.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = file_name(digest)
    draft.rename(folder / name)
    sizes = {"rows": layout.rows, "sequence_length": layout.length, "distinct": layout.distinct}
    return sizes | {"tokens": writer.tokens}, name, digest
