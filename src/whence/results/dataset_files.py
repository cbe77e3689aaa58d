"""The files of a store of dataset attributions, read in pieces or mapped, and refused where they are damaged.

Memory: a few megabytes while reading; a mapping takes none until its pages are touched. Cost: one hash of each byte
that is read. It does not know what the numbers mean.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

from whence.errors import FileFormatError
from whence.results import dataset_manifest as said
from whence.results.dataset_layout import AXES, EXTRA, Packing, Pair

_CHUNK = 1 << 22  # bytes read at once


def maps(folder: Path, found: said.Said) -> dict[str, torch.UntypedStorage]:
    """Every file of a store mapped, by what `files` calls it. The mappings are private, and outlive the files.

    Raises:
        FileFormatError: A file is missing, or is shorter or longer than it must be.
    """
    return {name: _mapped(file, packing.size) for name, file, packing in files(folder, found)}


def array(folder: Path, found: said.Said, pair: Pair, name: str) -> Iterator[memoryview]:
    """The bytes of one array of a block, a few megabytes at a time, in a buffer that is used again.

    Raises:
        FileFormatError: The file is gone or too short; or, after the last piece, its checksum differs.
    """
    file = folder / found.generation / said.file_name(pair[0])
    place = found.layout.targets[pair[0]].places[f"{pair[1]}/{name}"]
    digest = said.hasher()
    for chunk in chunks(file, place.start, place.size):
        digest.update(chunk)
        yield chunk
    written = found.digests[pair][found.layout.names(pair).index(name)]
    _check(digest.hexdigest() == written, file, f"{name} of {pair[1]} -> {pair[0]}")


def files(folder: Path, found: said.Said) -> Iterator[tuple[str, Path, Packing]]:
    """Every file of a store: the target site it is of, or its name; where it lies; what it holds."""
    inside = folder / found.generation
    for target, packing in found.layout.targets.items():
        yield target, inside / said.file_name(target), packing
    for name, packing in ((AXES, found.axes), (EXTRA, found.extra)):
        if name in found.files:
            yield name, inside / name, packing


def check_files(folder: Path, found: said.Said) -> None:
    """Compare the heads of all files with what they must be, and axes and other tensors with their checksums.

    Raises:
        FileFormatError: Names the file.
    """
    for name, file, packing in files(folder, found):
        whole = name in found.files
        digest = said.hasher()
        for chunk in chunks(file, 0, packing.size if whole else len(packing.head)):
            digest.update(chunk)
        _check(digest.hexdigest() == (found.files[name] if whole else said.digest(packing.head)), file, "its content")


def chunks(file: Path, start: int, size: int) -> Iterator[memoryview]:
    """Some bytes of a file, a few megabytes at a time, in a buffer that is used again.

    Raises:
        FileFormatError: The file is gone, or ends before them.
    """
    buffer = memoryview(bytearray(min(size, _CHUNK)))
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            while size:
                read = stream.readinto(buffer[: min(size, _CHUNK)])
                _check(bool(read), file, "its length")
                yield buffer[:read]
                size -= read
    except FileNotFoundError as error:
        raise FileFormatError(f"{file} is gone: the store was replaced since it was opened. Open it again.") from error


def _check(holds: bool, file: Path, what: str) -> None:
    if not holds:
        raise FileFormatError(f"{file} is damaged: {what} is not what was written. Compute or copy it again.")


def _mapped(file: Path, size: int) -> torch.UntypedStorage:
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        found = None
    if found != size:
        seen = "is missing" if found is None else f"has {found} bytes, and must have {size}"
        raise FileFormatError(f"{file} {seen}. Compute or copy it again.")
    try:
        mapped: Any = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=size)
        return cast(torch.UntypedStorage, mapped)
    except RuntimeError as error:  # removed since
        raise FileFormatError(f"{file} cannot be mapped: {error}.") from error
