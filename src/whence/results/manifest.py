"""`result.json`, the file that makes a folder a whence result.

    {format: "whence", version, kind, meta, files: {name: sha256}, digest}

`digest` is the sha256 of everything else in it, so that no value can change unnoticed. Reading checks, in this order:
size, JSON, format, version, digest; then brings an older version up to this one. It never opens the files it names.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError

NAME = "result.json"
VERSION = 2
MAX_BYTES = 64 * 2**20  # a description of this size is already strange; a larger one could fill the memory
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {  # version n -> how to make it version n + 1
    1: lambda manifest: manifest,  # nodes had no ends: tables with a column less, which `NodeTable` reads as well
}


def to_text(kind: str, meta: dict[str, Any], files: dict[str, str]) -> str:
    """The text of `result.json`.

    Args:
        kind: What the result is.
        meta: JSON-able description.
        files: sha256 of each file beside it.

    Raises:
        ValueError: `meta` holds a number that JSON has no word for (NaN, infinity).

    Example:
        >>> json.loads(to_text("scores", {}, {}))["version"]
        2
    """
    manifest = {"format": "whence", "version": VERSION, "kind": kind, "meta": meta, "files": files}
    try:
        return json.dumps(manifest | {"digest": _digest(manifest)}, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"the description of this result cannot be written as JSON: {error}.") from error


def load(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, undamaged, as the version it was written in (`version`) and in today's form.

    Args:
        folder: The result's folder.

    Raises:
        FileFormatError: Not a whence result, of a version this whence does not read, or damaged.

    Example:
        >>> load(Path("runs/one"))["kind"]  # doctest: +SKIP
        'scores'
    """
    file = folder / NAME
    if not file.is_file():
        raise FileFormatError(f"{folder} is not a whence result: it has no {NAME}. Check the path.")
    try:
        manifest = _parse(file)
        version, claimed = manifest.get("version"), manifest.pop("digest", None)
        if not isinstance(version, int) or version > VERSION:
            raise FileFormatError(
                f"{folder} has format version {version!r}; this whence reads up to {VERSION}. "
                "Upgrade it: pip install -U whence"
            )
        damaged = claimed != _digest(manifest)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{file} is damaged: {error}. Write the result again.") from error
    if damaged:
        raise FileFormatError(f"{file} is damaged: its digest does not match its content. Write the result again.")
    return _migrated(folder, manifest)


def is_ours(folder: Path) -> bool:
    """Whether the folder's `result.json` says that whence wrote it, in whatever version and state."""
    try:
        _parse(folder / NAME)
    except (OSError, ValueError, RecursionError, FileFormatError):
        return False
    return True


def _parse(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise FileFormatError(f"{file} has {size} bytes; whence reads at most {MAX_BYTES} there.")
    manifest = json.loads(file.read_bytes())
    if not isinstance(manifest, dict) or manifest.get("format") != "whence":
        raise FileFormatError(f"{file} was not written by whence: its format is not 'whence'.")
    return manifest


def _migrated(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    written = manifest["version"]
    for version in range(written, VERSION):
        if version not in MIGRATIONS:
            raise FileFormatError(f"{folder} has format version {version}, which this whence no longer reads.")
        manifest = MIGRATIONS[version](manifest)
    return manifest | {"version": written}


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, allow_nan=False).encode()).hexdigest()
