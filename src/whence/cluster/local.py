"""Shards as processes of this machine, watched: a dead one is started again and goes on from what it has flushed.

So many run at once, and each takes its part of the machine's processors (OMP_NUM_THREADS) and, where there are several
GPUs, one of them in turn. The processes end with this one, however it ends. Cost: a look at each process and progress
file a few times a second. It knows nothing of what the shards compute.
"""

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from whence.cluster.attempt import Attempt, ShardDied, after_deaths
from whence.cluster.job import Command, Job
from whence.cluster.standing import Tally, Watch, unwatched

_logger = logging.getLogger(__name__)


def run_local(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    retries: int = 2,
    gpus: int = 0,
    watch: Watch = unwatched,
    interval: float = 0.2,
) -> None:
    """Every shard, computed; what was computed before is not computed again.

    Args:
        jobs: The shards.
        workers: How many run at once.
        retries: How often each is started again after it died.
        gpus: GPUs to share out, one a worker in turn; 0 leaves to each what this process sees.
        watch: Called with how far the run is, every `interval`.
        interval: Seconds between two looks.

    Raises:
        ShardDied: A shard died more often than it may: names it, how it ended, and the last lines of its log. The
            others are ended too; what each has flushed is kept.
        ValueError: `workers` below 1, or `retries` or `gpus` below 0.

    Example:
        >>> run_local(worker_jobs("run", 4, windows=100), workers=2)  # doctest: +SKIP
    """
    if workers < 1 or retries < 0 or gpus < 0:
        raise ValueError(f"workers={workers}, retries={retries}, gpus={gpus}: at least 1, 0 and 0.")
    supervisor, tally = _Supervisor(jobs, retries, _environments(min(workers, len(jobs)), gpus)), Tally(jobs)
    try:
        while supervisor.busy():
            supervisor.look()
            watch(tally.standing())
            time.sleep(interval)
    finally:
        supervisor.stop()


class _Supervisor:
    """The shards that wait, and the one that runs in each slot; a slot is its environment."""

    def __init__(self, jobs: Sequence[Job], retries: int, slots: Sequence[Mapping[str, str]]) -> None:
        self._waiting, self._retries, self._slots = deque[Command](jobs), retries, slots
        self._running: dict[int, Attempt] = {}
        self._deaths: Counter[str] = Counter()

    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def look(self) -> None:
        """Take out what has ended, and fill the free slots."""
        for slot, attempt in list(self._running.items()):
            if attempt.ended():
                del self._running[slot]
                self._settle(attempt)
        for slot, environment in enumerate(self._slots):
            if slot not in self._running and self._waiting:
                self._running[slot] = Attempt(self._waiting.popleft(), environment)

    def stop(self) -> None:
        for attempt in self._running.values():
            attempt.stop()

    def _settle(self, attempt: Attempt) -> None:
        try:
            attempt.check()
        except ShardDied as death:
            self._deaths[attempt.job.name] += 1
            if self._deaths[attempt.job.name] > self._retries:
                raise ShardDied(f"{death}\n{after_deaths(self._retries)}") from None
            _logger.warning("%s\nIt is started again.", death)
            self._waiting.appendleft(attempt.job)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environments(slots: int, gpus: int) -> list[dict[str, str]]:
    threads = {"OMP_NUM_THREADS": str(max(1, processors() // max(1, slots)))}
    if not gpus:
        return [threads] * slots
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = (seen or [str(gpu) for gpu in range(gpus)])[:gpus]
    return [{**threads, "CUDA_VISIBLE_DEVICES": names[slot % len(names)]} for slot in range(slots)]
