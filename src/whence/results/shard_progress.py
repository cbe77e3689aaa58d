"""How far a shard of a dataset run has come: a small JSON file, replaced whole at every window.

    RUN/shards/000-of-003                  the shard's store
    RUN/shards/000-of-003.progress.json    what this module writes and reads

Shard i of n computes the windows from ⌊i·windows/n⌋ to ⌊(i+1)·windows/n⌋, without the last. The file is for whoever
watches: nothing resumes from it, and it may be a window ahead of the store.
"""

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from whence.errors import FileFormatError


@dataclass(frozen=True)
class ShardProgress:
    """How far a shard has come, over all the processes that have computed it.

    Args:
        windows_done: Windows that are in its sums.
        windows: Windows it has to do.
        tokens: Tokens that are in its sums.
        seconds: Time that those took.
        peak_bytes: Most memory that its process has held.
        finished: Whether its store is complete and written.
        pid: The process that computes it.
    """

    windows_done: int
    windows: int
    tokens: int
    seconds: float
    peak_bytes: int
    finished: bool
    pid: int = field(default_factory=os.getpid)


def shard_name(shard: int, shards: int) -> str:
    """The name of a shard's store and of the files beside it.

    Args:
        shard: Which, from 0.
        shards: How many there are.

    Raises:
        ValueError: There is no such shard.

    Example:
        >>> shard_name(0, 3)
        '000-of-003'
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} of {shards}: shards are counted from 0, so the last is {shards - 1}.")
    return f"{shard:03d}-of-{shards:03d}"


def shard_windows(windows: int, shard: int, shards: int) -> range:
    """The windows that a shard computes: consecutive, and of two shards as many or one more.

    Args:
        windows: Windows of the whole run.
        shard: Which shard, from 0.
        shards: How many there are.

    Raises:
        ValueError: There is no such shard.

    Example:
        >>> [shard_windows(10, shard, 3) for shard in range(3)]
        [range(0, 3), range(3, 6), range(6, 10)]
    """
    shard_name(shard, shards)
    return range(shard * windows // shards, (shard + 1) * windows // shards)


def progress_file(run: str | Path, shard: int, shards: int) -> Path:
    """Where a shard says how far it is.

    Args:
        run: The folder of the run.
        shard: Which shard, from 0.
        shards: How many there are.

    Example:
        >>> progress_file("run", 0, 3).name
        '000-of-003.progress.json'
    """
    return Path(run) / "shards" / f"{shard_name(shard, shards)}.progress.json"


def write_progress(path: str | Path, progress: ShardProgress) -> None:
    """Say how far a shard is; readers see the old file or the new one.

    Args:
        path: The file, as `progress_file` names it. Its folder is made when missing.
        progress: What to say.

    Example:
        >>> write_progress("run/shards/000-of-001.progress.json", progress)  # doctest: +SKIP
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fresh.write_text(json.dumps(asdict(progress)) + "\n", encoding="ascii")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def read_progress(path: str | Path) -> ShardProgress | None:
    """How far a shard is; None before it has said anything.

    Args:
        path: The file, as `progress_file` names it.

    Raises:
        FileFormatError: The file is something else, or damaged; remove it.

    Example:
        >>> read_progress("run/shards/000-of-001.progress.json") is None
        True
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return ShardProgress(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{path} does not say how far a shard is: {error}. Remove it.") from error
