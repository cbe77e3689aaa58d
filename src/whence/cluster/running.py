"""Computes a planned run with one of the engines, and merges its shards.

    local    supervised processes of this machine (`local.py`), then the merge
    ray      tasks on a Ray cluster (`on_ray.py`), then the merge
    slurm    an array job and a dependent merge (`slurm.py`), submitted; this process does not wait for them

Whatever was interrupted is run again by the same call: every shard goes on from what it has flushed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whence.cluster.job import merge_command
from whence.cluster.local import run_local
from whence.cluster.on_ray import RayOptions, run_on_ray
from whence.cluster.run_plan import RunPlan, plan_run
from whence.cluster.slurm import SlurmOptions, Submitted, submit
from whence.cluster.standing import Watch, unwatched


@dataclass(frozen=True)
class Ran:
    """What came of a run.

    Args:
        plan: What it did, or would do.
        merged: The merged store; None where the merge was not this process's.
        submitted: The jobs that SLURM has; None on other engines.
    """

    plan: RunPlan
    merged: Path | None = None
    submitted: Submitted | None = None


def run(
    folder: str | Path,
    *,
    merge: Callable[[Path], Path],
    engine: str = "local",
    shards: int | None = None,
    workers: int = 1,
    retries: int = 2,
    gpus: int = 0,
    ray: RayOptions | None = None,
    slurm: SlurmOptions | None = None,
    dry_run: bool = False,
    watch: Watch = unwatched,
) -> Ran:
    """A planned run, computed and merged.

    Args:
        folder: Of the run, with its `plan.json`.
        merge: Merges the finished shards of the folder and returns the store; on SLURM, `whence dataset merge` does.
        engine: "local", "ray" or "slurm".
        shards: Into how many the run is cut; None for those it has, or else one a worker.
        workers: How many shards run at once; SLURM and a Ray cluster that is there already decide for themselves.
        retries: How often a shard that died is started again.
        gpus: On "local": GPUs to share out, one a worker in turn.
        ray: On "ray": see `RayOptions`.
        slurm: On "slurm": see `SlurmOptions`.
        dry_run: Only say what would be done.
        watch: Called with how far the run is; never on SLURM.

    Raises:
        ValueError: An engine that there is not, numbers that mean nothing, or other shards than those begun.
        FileFormatError: The folder is no planned run.
        WhenceError: A shard died more often than it may, or the engine is not there; what was flushed is kept.

    Example:
        >>> run("runs/stories/da-20260131_235959", merge=merge, workers=4).merged  # doctest: +SKIP
        PosixPath('runs/stories/da-20260131_235959/result')
    """
    folder = Path(folder)
    plan = plan_run(folder, engine, shards, _at_once(engine, workers, ray, slurm))
    if dry_run:
        return Ran(plan)
    if engine == "slurm":
        logs, asked = folder / "logs" / "submitit", {"memory_gb": plan.memory_gb, "minutes": plan.minutes}
        return Ran(plan, None, submit(plan.jobs, merge_command(folder), logs, **asked, retries=retries, options=slurm))
    if engine == "ray":
        run_on_ray(plan.jobs, workers=workers, retries=retries, options=ray, watch=watch)
    else:
        run_local(plan.jobs, workers=workers, retries=retries, gpus=gpus, watch=watch)
    return Ran(plan, merge(folder))


def _at_once(engine: str, workers: int, ray: RayOptions | None, slurm: SlurmOptions | None) -> int | None:
    if engine == "slurm":
        return slurm.parallel if slurm else None
    return None if engine == "ray" and ray and ray.address else workers
