"""Folders of results: JSON for what is said, safetensors for the numbers, versioned and checksummed, never pickle.

    path/result.json                   what the result is, with the checksum of the file beside it (`manifest.py`)
    path/tensors-<sha256>.safetensors  named by its content, so that a new result never overwrites the old numbers

Replacing `result.json` is the one step that turns an old result into a new one: interrupted before it, the old result
is whole; after it, the new one is. Cost: the tensors are read once more for their checksum. It knows nothing of their
meaning.
"""

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from whence.errors import FileFormatError
from whence.results import manifest


@dataclass(frozen=True)
class Record:
    """What a folder holds: its kind, the version it was written in, its JSON and its tensors."""

    kind: str
    version: int
    meta: dict[str, Any]
    tensors: dict[str, Tensor]


def write(path: str | Path, kind: str, meta: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """The folder, written whole or not at all; a result already there is replaced.

    Args:
        path: The folder to make. Its parent is made when missing.
        kind: What the result is, such as "scores".
        meta: JSON-able description.
        tensors: Numbers by name, on any device; views are copied where the file format needs it.

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
        names = _fill(fresh, kind, meta, tensors)
        _install(fresh, path, names) if replaces else fresh.rename(path)
        _sync(path.parent)
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
    path = Path(path)
    said = manifest.load(path)
    try:
        found, meta, ((name, digest),) = said["kind"], said["meta"], said["files"].items()
    except (KeyError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path / manifest.NAME} lacks its kind, its meta or its one file.") from error
    if kind is not None and found != kind:
        raise FileFormatError(f"{path} holds a result of kind {found!r}, and {kind!r} is wanted here.")
    if name != _tensor_name(str(digest)):
        raise FileFormatError(f"{path / manifest.NAME} names a file {name!r}, which is not a name whence gives.")
    return Record(found, said["version"], meta, _load(path / name, digest))


def _occupied(path: Path) -> bool:
    """Whether a result of ours is there to be replaced; anything but that, nothing and an empty folder is refused."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not manifest.is_ours(path):
        raise FileFormatError(f"{path} exists and is not a whence result, so it is left alone. Choose another path.")
    return True


def _fill(folder: Path, kind: str, meta: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, str]:
    """The names of the two files written: the tensors, then the manifest that vouches for them."""
    draft = folder / "tensors"
    safetensors.torch.save_file(_storable(tensors), draft)
    digest = _sha256(draft)
    name = _tensor_name(digest)
    draft.rename(folder / name)
    (folder / manifest.NAME).write_text(manifest.to_text(kind, meta, {name: digest}), encoding="ascii")
    for file in (name, manifest.NAME):
        (folder / file).chmod(0o644)
        _sync(folder / file)
    folder.chmod(0o755)
    _sync(folder)
    return name, manifest.NAME


def _install(fresh: Path, path: Path, names: tuple[str, str]) -> None:
    """Move new files over an existing result, the manifest last, then drop tensors that no manifest names any more."""
    for name in names:
        os.replace(fresh / name, path / name)
        _sync(path)
    for stale in path.glob("tensors-*.safetensors"):
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


def _load(file: Path, digest: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileFormatError(f"{file} is missing. Copy the whole folder, or write the result again.")
    found = _sha256(file)
    if found != digest:
        raise FileFormatError(f"{file} is damaged: its sha256 is {found}, not {digest}. Write the result again.")
    try:
        return safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise FileFormatError(f"{file} is not a safetensors file: {error}.") from error


def _tensor_name(digest: str) -> str:
    return f"tensors-{digest[:16]}.safetensors"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk, so that a power cut cannot keep the rename and lose the content."""
    if os.name != "posix":  # elsewhere a folder cannot be opened; the renames still happen in order
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
