"""Folders of results: JSON for what is said, safetensors for the numbers, versioned and checksummed, never pickle.

    path/result.json                   what the result is, with the checksum of the file beside it (`manifest.py`)
    path/tensors-<sha256>.safetensors  named by its content, so that a new result never overwrites the old numbers
    path/large-<sha256>.safetensors    where there are any: tensors that are read, and checked, when first asked for

Replacing `result.json` is the one step that turns an old result into a new one: interrupted before it, the old result
is whole; after it, the new one is. Cost: the tensors are read once more for their checksum; large ones are then mapped
into memory. It knows nothing of their meaning.
"""

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import manifest


class Large:
    """The large tensors of a result by name; their file is opened, and its checksum taken, at the first look.

    Args:
        file: The file; None where the result has none.
        digest: Its sha256.

    Raises:
        FileFormatError: At the first look: the file is missing or damaged.
    """

    def __init__(self, file: Path | None = None, digest: str = "") -> None:
        self._file, self._digest = file, digest

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors, read now if they were not before."""
        if self._file is None:
            return {}
        _check(self._file, self._digest)
        return _load(self._file)


@dataclass(frozen=True)
class Record:
    """What a folder holds: its kind, the version it was written in, its JSON, its tensors and its large ones."""

    kind: str
    version: int
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    large: Large = field(default_factory=Large)


@dataclass(frozen=True)
class Located:
    """A result whose tensors are checked but not read: the file that holds them, and its sha256."""

    kind: str
    version: int
    meta: dict[str, Any]
    file: Path
    digest: str
    large: Large


def write(
    path: str | Path,
    kind: str,
    meta: dict[str, Any],
    tensors: dict[str, Tensor],
    large: dict[str, Tensor] | None = None,
) -> Path:
    """The folder, written whole or not at all; a result already there is replaced.

    Args:
        path: The folder to make. Its parent is made when missing.
        kind: What the result is, such as "scores".
        meta: JSON-able description.
        tensors: Numbers by name, on any device; views are copied where the file format needs it.
        large: Numbers to be read only when they are asked for.

    Raises:
        FileFormatError: The path holds something that is not a whence result; choose another path.
        ValueError: `meta` holds a number that JSON has no word for (NaN, infinity).

    Example:
        >>> write("runs/one", "scores", {"method": "direct"}, {"values": torch.zeros(3)})  # doctest: +SKIP
        PosixPath('runs/one')
    """
    path = Path(path)
    replaces = _occupied(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        fresh.mkdir()
        names = _fill(fresh, kind, meta, {"tensors": tensors} | ({"large": large} if large else {}))
        _install(fresh, path, names) if replaces else fresh.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def read(path: str | Path, kind: str | None = None) -> Record:
    """What `write` put there, checked.

    Args:
        path: The folder.
        kind: The kind that is wanted; None takes any.

    Raises:
        FileFormatError: Not a whence result, of another kind, of a newer version (upgrade whence) or damaged (write it
            again).

    Example:
        >>> read("runs/one").kind  # doctest: +SKIP
        'scores'
    """
    found = locate(path, kind)
    return Record(found.kind, found.version, found.meta, _load(found.file), found.large)


def locate(path: str | Path, kind: str | None = None) -> Located:
    """What `write` put there, checked like `read` does, for one who takes tensors from the file as they are needed.

    Args:
        path: The folder.
        kind: The kind that is wanted; None takes any.

    Raises:
        FileFormatError: As `read` does, but for a file that is no safetensors file.

    Example:
        >>> locate("runs/one").file  # doctest: +SKIP
        PosixPath('runs/one/tensors-aeb4aa91b20c6769.safetensors')
    """
    path = Path(path)
    said = manifest.load(path)
    try:
        found, meta, ((name, digest), *more) = said["kind"], said["meta"], said["files"].items()
    except (KeyError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path / manifest.NAME} lacks its kind, its meta or its files.") from error
    if kind is not None and found != kind:
        raise FileFormatError(f"{path} holds a result of kind {found!r}, and {kind!r} is wanted here.")
    names = [_file_name(part, sha) for part, (_, sha) in zip(("tensors", "large"), said["files"].items(), strict=False)]
    for given in (name, *(file for file, _ in more)):
        if given not in names:
            raise FileFormatError(f"{path / manifest.NAME} names a file {given!r}, which is not a name whence gives.")
    _check(path / name, digest)
    large = Large(path / more[0][0], more[0][1]) if more else Large()
    return Located(found, said["version"], meta, path / name, digest, large)


def _occupied(path: Path) -> bool:
    """Whether a result of ours is there to be replaced; anything but that, nothing and an empty folder is refused."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not manifest.is_ours(path):
        raise FileFormatError(f"{path} exists and is not a whence result, so it is left alone. Choose another path.")
    return True


def _fill(folder: Path, kind: str, meta: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> tuple[str, ...]:
    """The names of the files written: those with tensors, then the manifest that vouches for them."""
    digests: dict[str, str] = {}
    for part, tensors in parts.items():
        draft = folder / part
        safetensors.torch.save_file(_storable(tensors), draft)
        digest = _sha256(draft)
        draft.rename(folder / _file_name(part, digest))
        digests[_file_name(part, digest)] = digest
    (folder / manifest.NAME).write_text(manifest.to_text(kind, meta, digests), encoding="ascii")
    for file in (*digests, manifest.NAME):
        (folder / file).chmod(0o644)
        sync(folder / file)
    folder.chmod(0o755)
    sync(folder)
    return *digests, manifest.NAME


def _install(fresh: Path, path: Path, names: tuple[str, ...]) -> None:
    """Move new files over an existing result, the manifest last, then drop tensors that no manifest names any more."""
    for name in names:
        os.replace(fresh / name, path / name)
        sync(path)
    for stale in (*path.glob("tensors-*.safetensors"), *path.glob("large-*.safetensors")):
        if stale.name not in names:
            stale.unlink()


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors wants them: contiguous, on the CPU, each alone in a storage of its size."""
    storages: set[int] = set()
    out: dict[str, Tensor] = {}
    for name, given in tensors.items():
        tensor = given.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        out[name] = tensor.clone() if storage.data_ptr() in storages or storage.nbytes() > tensor.nbytes else tensor
        storages.add(storage.data_ptr())
    return out


def _check(file: Path, digest: str) -> None:
    if not file.is_file():
        raise FileFormatError(f"{file} is missing. Copy the whole folder, or write the result again.")
    found = _sha256(file)
    if found != digest:
        raise FileFormatError(f"{file} is damaged: its sha256 is {found}, not {digest}. Write the result again.")


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise FileFormatError(f"{file} is not a safetensors file: {error}.") from error


def _file_name(part: str, digest: object) -> str:
    return f"{part}-{str(digest)[:16]}.safetensors"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file or folder to the disk, so that a power cut cannot keep the rename and lose the content."""
    if os.name != "posix":  # elsewhere a folder cannot be opened; the renames still happen in order
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
