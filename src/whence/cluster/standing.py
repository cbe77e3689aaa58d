"""How far all shards of a run are, from the files in which each says how far it is.

    tokens a second = tokens since the watch began / time since then
    time left       = windows left / windows a second since the watch began
    memory          = Σ over the shards at work of the most that each has held; the largest such sum seen

A shard is taken to be at work when its file has changed since the watch began and does not say that it is finished.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whence.cluster.job import Job
from whence.errors import FileFormatError
from whence.results.shard_progress import ShardProgress, read_progress

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How far a run is; as text, one line.

    Args:
        shards: How many there are.
        shards_done: How many of them are finished.
        windows: Of the whole run.
        windows_done: How many of them are in the sums.
        tokens: In the sums.
        tokens_per_second: Since the watch began; None before anything was counted.
        seconds_left: At the speed since the watch began; None before it is known.
        peak_bytes: The most memory that the shards at work have held together.
    """

    shards: int
    shards_done: int
    windows: int
    windows_done: int
    tokens: int
    tokens_per_second: float | None
    seconds_left: float | None
    peak_bytes: int

    def __str__(self) -> str:
        parts = [
            f"{self.windows_done:,} of {self.windows:,} windows",
            f"{self.shards_done} of {self.shards} shards",
            f"{self.tokens:,} tokens",
        ]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        if self.peak_bytes:
            gigabytes = self.peak_bytes / 1e9
            parts.append(f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.0f} MB")
        return " · ".join(parts)


Watch = Callable[[Standing], None]


def unwatched(standing: Standing) -> None:
    """Take how far a run is and do nothing with it."""


def duration(seconds: float) -> str:
    """A time as people say it.

    Args:
        seconds: How long.

    Example:
        >>> duration(3900), duration(61), duration(5)
        ('1 h 05 min', '1 min 01 s', '5 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Tally:
    """Adds up what the shards say.

    Args:
        jobs: The shards.
        clock: Seconds from any moment.
    """

    def __init__(self, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs, self._clock, self._began, self._peak = jobs, clock, clock(), 0
        self._before = {job.name: _said(job) for job in jobs}
        before = [said for said in self._before.values() if said]
        self._windows, self._tokens = sum(said.windows_done for said in before), sum(said.tokens for said in before)

    def standing(self) -> Standing:
        """How far the shards are now."""
        now = {job.name: said for job in self._jobs if (said := _said(job))}
        at_work = [said for name, said in now.items() if said != self._before[name] and not said.finished]
        self._peak = max(self._peak, sum(said.peak_bytes for said in at_work))
        windows, done = sum(job.windows for job in self._jobs), sum(said.windows_done for said in now.values())
        tokens, spent = sum(said.tokens for said in now.values()), self._clock() - self._began
        new_windows, new_tokens = done - self._windows, tokens - self._tokens
        return Standing(
            shards=len(self._jobs),
            shards_done=sum(said.finished for said in now.values()),
            windows=windows,
            windows_done=done,
            tokens=tokens,
            tokens_per_second=new_tokens / spent if new_tokens > 0 and spent > 0 else None,
            seconds_left=(windows - done) * spent / new_windows if new_windows > 0 else None,
            peak_bytes=self._peak,
        )


def _said(job: Job) -> ShardProgress | None:
    """What a shard says; a damaged file says nothing, as nothing but the display depends on it."""
    try:
        return read_progress(job.progress)
    except FileFormatError as error:
        _logger.warning("%s", error)
        return None
