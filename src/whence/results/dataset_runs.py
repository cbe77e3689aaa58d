"""Where runs of dataset attributions lie: dated sub-runs of a folder, of which the newest finished one counts.

    OUT/da-20260131_235959/result        a store (`dataset_writer.py`)
    OUT/da-20260131_235959/shards/...    what it was merged from

A name that is no date, such as `da-timing-1`, is no sub-run. Dates are UTC, so that they order runs whatever the
machine's zone. Cost: a manifest for each sub-run looked at. It knows no blocks.
"""

import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from whence.errors import FileFormatError
from whence.results import dataset_manifest, manifest

_logger = logging.getLogger(__name__)
_FORMAT = "da-%Y%m%d_%H%M%S"
_NAME = re.compile(r"da-\d{8}_\d{6}")


def new_subrun(out: str | Path) -> Path:
    """A new, empty sub-run, named by now, or by the next second that is free.

    Args:
        out: The folder of sub-runs; made when missing.

    Raises:
        FileFormatError: A file is in its way.

    Example:
        >>> new_subrun("runs/stories")  # doctest: +SKIP
        PosixPath('runs/stories/da-20260131_235959')
    """
    out, moment = Path(out), datetime.now(UTC)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileFormatError(f"{out} cannot be a folder of runs: a file is in its way. Choose another.") from error
    while True:
        made = out / moment.strftime(_FORMAT)
        try:
            made.mkdir()
        except FileExistsError:
            moment += timedelta(seconds=1)
        else:
            return made


def subruns(out: str | Path) -> list[Path]:
    """The sub-runs of a folder, the newest first.

    Args:
        out: The folder. One that does not exist has none.
    """
    out = Path(out)
    found = [entry for entry in out.iterdir() if entry.is_dir() and _is_date(entry.name)] if out.is_dir() else []
    return sorted(found, key=lambda entry: entry.name, reverse=True)


def find_result(path: str | Path) -> Path:
    """The finished result that a path means: a store, a sub-run, or a folder of sub-runs, whose newest counts.

    Args:
        path: Any of these.

    Raises:
        FileFormatError: None is finished; lists what was seen.

    Example:
        >>> find_result("runs/stories")  # doctest: +SKIP
        PosixPath('runs/stories/da-20260131_235959/result')
    """
    path = Path(path)
    if (path / manifest.NAME).exists():
        return path
    if (path / "result").is_dir() and not _complaint(path):
        return path / "result"
    seen: list[str] = []
    for subrun in subruns(path):
        complaint = _complaint(subrun)
        if not complaint:
            return subrun / "result"
        _logger.info("skipped %s: %s", subrun, complaint)
        seen.append(f"{subrun.name} ({complaint})")
    raise FileFormatError(f"{path} has no finished dataset attributions: {_seen(path, seen)}.")


def _complaint(subrun: Path) -> str:
    """Why a sub-run has no finished result, or "" if it has one."""
    result = subrun / "result"
    if not (result / manifest.NAME).exists():
        shards = len([*subrun.glob("shards/*-of-*/result.json")])
        return f"not merged; {shards} shards begun" if shards else "no result and no shards"
    try:
        dataset_manifest.read(result)
    except FileFormatError as error:
        return str(error)
    return ""


def _seen(path: Path, skipped: list[str]) -> str:
    if not path.is_dir():
        return "there is no such folder"
    if skipped:
        return "; ".join(skipped)
    if (path / "shards").is_dir() or _is_date(path.name):
        return _complaint(path)
    names = sorted(entry.name for entry in path.iterdir())
    return f"no sub-run da-YYYYMMDD_HHMMSS among {', '.join(names[:8])}" if names else "it is empty"


def _is_date(name: str) -> bool:
    if not _NAME.fullmatch(name):
        return False
    try:
        datetime.strptime(name, _FORMAT)
    except ValueError:
        return False
    return True
