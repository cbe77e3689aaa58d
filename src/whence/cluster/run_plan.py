"""What a run will do, before it does it: its shards, what each needs, and how long it should take.

seconds = seconds per window · Σ over rounds of so many shards at once of the windows of the longest

A run keeps the shards that it was first cut into, so that all that was computed counts and a merge has one cut to read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whence.cluster.job import Job, worker_jobs
from whence.cluster.planned import read_planned, resources
from whence.cluster.standing import duration

_SHARD = re.compile(r"\d{3,}-of-(\d{3,})")
ENGINES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class RunPlan:
    """What a run will do; as text, a line for each shard.

    Args:
        jobs: The shards.
        engine: Where they are computed.
        at_once: How many at once, at most; None where the cluster decides.
        memory_gb: What each may need.
        minutes: What each is given on SLURM.
        seconds: What the whole run should take; None where the cluster decides.
    """

    jobs: tuple[Job, ...]
    engine: str
    at_once: int | None
    memory_gb: int
    minutes: int
    seconds: float | None

    def rows(self) -> list[tuple[str, int, str]]:
        """For each shard its name, its windows and its command."""
        return [(job.name, job.windows, " ".join(job.command)) for job in self.jobs]

    def __str__(self) -> str:
        at_once = "as many at once as there is room for" if self.at_once is None else f"{self.at_once} at once"
        time = "time unknown: the cluster decides" if self.seconds is None else f"about {duration(self.seconds)}"
        windows = sum(job.windows for job in self.jobs)
        head = (
            f"{windows:,} windows in {len(self.jobs)} shards on {self.engine}, {at_once}, "
            f"up to {self.memory_gb} GB each, {time}"
        )
        return "\n".join([head, *(f"{name}  {windows:,} windows  {command}" for name, windows, command in self.rows())])


def plan_run(folder: str | Path, engine: str, shards: int | None, at_once: int | None) -> RunPlan:
    """What a run will do.

    Args:
        folder: Of the run, with its `plan.json`.
        engine: Where its shards are computed.
        shards: Into how many it is cut; None for those it has, or else one for each at once, or one.
        at_once: How many are computed at once, at most; None where the cluster decides.

    Raises:
        ValueError: An engine that there is not, no shards or more than windows, or others than those begun.
        FileFormatError: The folder is no planned run.

    Example:
        >>> plan_run("runs/stories/da-20260131_235959", "local", shards=4, at_once=2).seconds  # doctest: +SKIP
        1250.0
    """
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}': choose one of {', '.join(ENGINES)}.")
    if at_once is not None and at_once < 1:
        raise ValueError(f"{at_once} shards at once: at least 1.")
    planned = read_planned(folder)
    jobs = worker_jobs(folder, _cut(Path(folder), shards, at_once or 1, planned.windows), planned.windows)
    seconds = _seconds(jobs, at_once, planned.seconds_per_window)
    return RunPlan(tuple(jobs), engine, at_once, *resources(planned, len(jobs)), seconds)


def _cut(folder: Path, shards: int | None, at_once: int, windows: int) -> int:
    begun = _begun(folder)
    if not begun:
        return min(at_once, windows) if shards is None else shards
    if len(begun) > 1 or shards not in (None, *begun):
        cuts = " and ".join(map(str, sorted(begun)))
        raise ValueError(f"{folder} was begun with {cuts} shards, not {shards}. Go on with those, or plan a new run.")
    return begun.pop()


def _begun(folder: Path) -> set[int]:
    """Into how many shards the run is cut already."""
    names = (_SHARD.match(entry.name) for entry in (folder / "shards").glob("*-of-*"))
    return {int(name[1]) for name in names if name}


def _seconds(jobs: Sequence[Job], at_once: int | None, per_window: float) -> float | None:
    if at_once is None:
        return None
    rounds = [jobs[first : first + at_once] for first in range(0, len(jobs), at_once)]
    return per_window * sum(max(job.windows for job in together) for together in rounds)
