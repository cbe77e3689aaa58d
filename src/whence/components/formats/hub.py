"""From what a user writes to files on this machine: a folder, a file, or a repository on the Hugging Face Hub.

    folder                          as it is
    org/repo[/sub/folder][@rev]     downloaded into the Hub's own cache; also hf://org/repo/sub?revision=rev

Cost: what is not in the cache is downloaded. Knows no format.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from whence.errors import FileFormatError

_READ: tuple[str, ...] = ("*.safetensors", "*.json", "*.yaml", "*.npz", "*.pt")
_REFERENCE = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+)((?:/[^@?/]+)*)/?(?:(?:@|\?revision=)(.+))?")


@dataclass(frozen=True, slots=True)
class Found:
    """Where the files lie, the path within their source, and the version of it."""

    root: Path
    path: PurePath
    revision: str | None


def resolve(reference: str | Path) -> Found:
    """The files that are meant.

    Args:
        reference: A folder, a file, or `org/repo[/sub][@rev]`.

    Raises:
        FileFormatError: Nothing is there, or the Hub could not be asked.
    """
    if not str(reference).strip():
        raise FileFormatError("the name of a folder is empty. Give a folder, or org/repo[/sub][@rev] on the Hub.")
    local = Path(reference).expanduser()
    if local.exists():
        return Found(local, local, None)
    match = _REFERENCE.fullmatch(str(reference))
    if match is None or str(reference).startswith((".", "/", "~")):
        raise FileFormatError(
            f"there is no folder {str(reference)!r}. Give a folder, or org/repo[/sub][@rev] on the Hub."
        )
    repository, sub, revision = match[1], match[2].strip("/"), match[3]
    snapshot = _download(repository, sub, revision)
    if not (snapshot / sub).exists():
        raise FileFormatError(
            f"the repository {repository} has no {sub!r} at {revision or 'its main branch'}. Check the path."
        )
    return Found(snapshot / sub, PurePath(sub), snapshot.name)


def _download(repository: str, sub: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    wanted = [sub, *(f"{sub}/{pattern}" for pattern in _READ)] if sub else list(_READ)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise FileFormatError(
            f"there is no folder {repository!r}, and the Hub has no such repository or revision that you can see "
            f"({type(error).__name__}). Check the name; if it is private, log in with `hf auth login`."
        ) from None
    except Exception as error:  # noqa: BLE001  # what the Hub's client raises offline depends on its version
        raise FileFormatError(
            f"{repository!r} is not on this machine, and the Hub could not be asked for it ({type(error).__name__}). "
            "Check the connection, or give a folder that holds the files."
        ) from None
