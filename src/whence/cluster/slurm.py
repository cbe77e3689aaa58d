"""Shards as an array job of SLURM, and the merge as a job that depends on it, submitted through submitit.

Every element of the array is one shard. Submitting returns at once. SLURM ends a shard that has used up its time, or
that must make room for another; it is put back into the queue and goes on from what it has flushed. A shard that dies
is tried again where it runs. The merge starts once all have ended well; where one has not, SLURM drops it. The
same jobs run without SLURM as processes of this machine (`executor="local"`): all shards at once, and the merge after
they have ended. submitit hands its jobs over as pickles in a folder of the run, which hold the command and no more.
"""

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from whence.cluster.attempt import ShardDied, run_attempt
from whence.cluster.job import Command, Job
from whence.errors import WhenceError

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.core.core import Job as Submission
    from submitit.core.utils import DelayedSubmission

_logger = logging.getLogger(__name__)
_MERGE_MINUTES = 240


@dataclass(frozen=True)
class SlurmOptions:
    """What SLURM is asked for.

    Args:
        executor: "slurm", or "local" for processes of this machine.
        partition: Where the jobs run; None for the cluster's default.
        account: Who is charged; None for the user's default.
        gpus: GPUs of each shard.
        cpus: Processors of each shard.
        parallel: How many shards may run at once; None for all.
        requeues: How often a shard may be put back into the queue.
        memory_gb: Memory of each shard; None for what its sizes ask for (`planned.py`).
        minutes: Time of each shard until it is put back into the queue; None for what its sizes ask for.
    """

    executor: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    account: str | None = None
    gpus: int = 0
    cpus: int = 4
    parallel: int | None = None
    requeues: int = 20
    memory_gb: int | None = None
    minutes: int | None = None


@dataclass(frozen=True)
class Submitted:
    """The numbers of submitted jobs.

    Args:
        shards: Of each shard.
        merge: Of the merge.
    """

    shards: tuple[str, ...]
    merge: str


class _Task:
    """A command, as submitit calls it; put back into the queue, it is called again."""

    def __init__(self, job: Command, cpus: int, retries: int) -> None:
        self.job, self.cpus, self.retries = job, cpus, retries

    def __call__(self) -> None:
        environment = {"OMP_NUM_THREADS": str(self.cpus)}
        for _ in range(self.retries):
            try:
                return run_attempt(self.job, environment, None)
            except ShardDied as death:
                _logger.warning("%s\nIt is started again.", death)
        return run_attempt(self.job, environment, None)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit puts into the queue when time is up: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    jobs: Sequence[Job],
    merge: Command,
    folder: str | Path,
    *,
    memory_gb: int,
    minutes: int,
    retries: int = 2,
    options: SlurmOptions | None = None,
) -> Submitted:
    """The array job of the shards and the merge that depends on it, submitted.

    Args:
        jobs: The shards.
        merge: The merge.
        folder: For what submitit writes; all machines must see it.
        memory_gb: Memory of each shard and of the merge, where the options do not say.
        minutes: Time of each shard until it is put back into the queue, where the options do not say.
        retries: How often a shard that died is started again.
        options: See `SlurmOptions`.

    Raises:
        WhenceError: submitit is not installed, this machine submits to no SLURM, or (with "local") a shard failed.

    Example:
        >>> submit(worker_jobs("run", 4, 100), merge, "run/logs/submitit", memory_gb=12, minutes=60)  # doctest: +SKIP
        Submitted(shards=('812_0', '812_1', '812_2', '812_3'), merge='813')
    """
    options = options or SlurmOptions()
    asked = _asked(options, options.memory_gb or memory_gb, options.minutes or minutes)
    shards = _executor(folder, options, asked).submit_array([_Task(job, options.cpus, retries) for job in jobs])
    if options.executor == "local":
        _wait(shards)
    merging = _executor(folder, options, _asked_of_merge(asked, shards)).submit(_Task(merge, options.cpus, 0))
    if options.executor == "local":
        _wait([merging])
    return Submitted(tuple(shard.job_id for shard in shards), merging.job_id)


def _asked(options: SlurmOptions, memory_gb: int, minutes: int) -> dict[str, Any]:
    asked = {
        "name": "whence",
        "mem_gb": memory_gb,
        "timeout_min": minutes,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus or None,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_array_parallelism": options.parallel,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _asked_of_merge(asked: dict[str, Any], shards: "Sequence[Submission[None]]") -> dict[str, Any]:
    """No GPU, held until the whole array has ended well, and dropped where it has not."""
    whole_array = shards[0].job_id.split("_")[0]
    shared = {name: value for name, value in asked.items() if name not in ("gpus_per_node", "slurm_array_parallelism")}
    own = {"name": "whence-merge", "timeout_min": _MERGE_MINUTES, "slurm_dependency": f"afterok:{whole_array}"}
    return {**shared, **own, "slurm_additional_parameters": {"kill-on-invalid-dep": "yes"}}


def _executor(folder: str | Path, options: SlurmOptions, asked: dict[str, Any]) -> "AutoExecutor":
    if importlib.util.find_spec("submitit") is None:
        raise WhenceError("submitit is not installed. Run `pip install 'whence[slurm]'`, or choose another engine.")
    import submitit

    try:
        executor = submitit.AutoExecutor(folder, cluster=options.executor, slurm_max_num_timeout=options.requeues)
    except RuntimeError as error:
        raise WhenceError("this machine has no `srun`, so it submits to no SLURM. Run this on a login node.") from error
    executor.update_parameters(**asked)
    return executor


def _wait(submissions: "Sequence[Submission[None]]") -> None:
    for submission in submissions:
        error = submission.exception()
        if error is not None:
            raise WhenceError(f"job {submission.job_id} failed: {error}")
