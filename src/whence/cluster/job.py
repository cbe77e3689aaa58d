"""What an engine knows of a shard: the command that computes it, and where that command says how far it is."""

import sys
from dataclasses import dataclass
from pathlib import Path

from whence.results.shard_progress import progress_file, shard_name, shard_windows


@dataclass(frozen=True)
class Command:
    """Something to run.

    Args:
        name: As messages say it.
        command: The program and its arguments; it ends with status 0 once it is finished, started again or not.
        log: The file that takes what it writes to stdout and stderr, behind what is there.
    """

    name: str
    command: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Job(Command):
    """A shard to compute.

    Args:
        name: As messages say it.
        command: Computes the shard, or goes on with it.
        log: The file that takes what the command writes.
        progress: The file in which the command says how far it is.
        windows: Windows it has to do.
    """

    progress: Path
    windows: int


def worker_jobs(run: str | Path, shards: int, windows: int) -> list[Job]:
    """The shards of a run, each computed by `whence dataset worker`.

    Args:
        run: The folder of the run.
        shards: Into how many the run is cut.
        windows: Windows of the whole run.

    Raises:
        ValueError: Fewer than one shard, or more shards than windows.

    Example:
        >>> [job.command[-2:] for job in worker_jobs("run", 2, 5)]
        [('--shard', '0/2'), ('--shard', '1/2')]
    """
    if not 1 <= shards <= windows:
        raise ValueError(f"{shards} shards of a run with {windows} windows: choose between 1 and {windows} shards.")
    run = Path(run).absolute()
    return [
        Job(
            f"shard {shard_name(shard, shards)}",
            (*_whence("worker", run), "--shard", f"{shard}/{shards}"),
            run / "logs" / f"{shard_name(shard, shards)}.log",
            progress_file(run, shard, shards),
            len(shard_windows(windows, shard, shards)),
        )
        for shard in range(shards)
    ]


def merge_command(run: str | Path) -> Command:
    """The command that merges the finished shards of a run.

    Args:
        run: The folder of the run.

    Example:
        >>> merge_command("/runs/stories").command[1:]
        ('-m', 'whence', 'dataset', 'merge', '/runs/stories')
    """
    run = Path(run).absolute()
    return Command("the merge", _whence("merge", run), run / "logs" / "merge.log")


def _whence(what: str, run: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "whence", "dataset", what, str(run))
