"""The folder of a store while it is written: one writer, generations beside each other, one step from old to new.

Replacing `result.json` by a rename is that step. Whatever ends a writer before it leaves the old store; a generation
that was not switched to is removed by its writer, or by the next one. Cost: a rename. It knows no blocks.
"""

import logging
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from whence.errors import FileFormatError, WhenceError
from whence.results import dataset_manifest, manifest
from whence.results.store import sync

_logger = logging.getLogger(__name__)
_LOCK, _DRAFT = ".lock", ".result.json.draft"


def _ours(entry: str) -> bool:
    return entry in (manifest.NAME, _LOCK, _DRAFT) or entry.startswith("blocks-")


def refuse_others(folder: Path) -> None:
    """Leave alone a folder that holds anything but a store, whole or begun.

    Raises:
        FileFormatError: Names what it holds.
    """
    others = sorted(entry.name for entry in folder.iterdir() if not _ours(entry.name))
    if others or ((folder / manifest.NAME).exists() and not manifest.is_ours(folder)):
        seen = ", ".join(others[:5]) or manifest.NAME
        raise FileFormatError(
            f"{folder} holds {seen}, which is no part of a store, so it is left alone. Choose another."
        )


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Hold the store's lock, as `held` does.

    Raises:
        WhenceError: Another process holds it.
    """
    with held(folder / _LOCK, f"another process is writing {folder} now. Wait for it, or end it."):
        yield


@contextmanager
def held(lock: Path, refusal: str) -> Generator[None]:
    """Hold a lock, which ends with the process however it ends.

    Args:
        lock: The file that is locked; made when missing, and left.
        refusal: What to say where another process holds it.

    Raises:
        WhenceError: Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system: one writer is up to its caller
        yield
        return
    with lock.open("wb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WhenceError(refusal) from error
        except OSError as error:
            _logger.warning("no lock on %s: %s. See to it that one process alone writes there.", lock.parent, error)
        yield


@contextmanager
def generation(folder: Path) -> Generator[Path]:
    """A new folder for one generation of files, gone again if its writing fails."""
    made = folder / f"blocks-{uuid.uuid4().hex}"
    made.mkdir()
    try:
        yield made
    finally:
        if not _stands(folder, made):
            shutil.rmtree(made, ignore_errors=True)


def _stands(folder: Path, made: Path) -> bool:
    """Whether this generation is the store, so that it must stay whatever comes after."""
    try:
        return dataset_manifest.read(folder).generation == made.name
    except FileFormatError:
        return False


def switch(folder: Path, made: Path, text: str) -> None:
    """Make a generation the store, and remove the others.

    Args:
        folder: The store.
        made: The generation, on the disk already.
        text: Of `result.json`, which names it.
    """
    draft = folder / _DRAFT
    draft.write_text(text, encoding="ascii")
    sync(draft)
    os.replace(draft, folder / manifest.NAME)
    sync(folder)
    sync(folder.parent)  # the folder itself may be new
    for old in folder.glob("blocks-*"):
        if old.name != made.name:
            shutil.rmtree(old, ignore_errors=True)
