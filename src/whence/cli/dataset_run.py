"""`whence dataset run`: a run planned, computed shard by shard on an engine, and merged."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.console import command_line, one_of, print_json, progress_bar, say, stderr, stdout
from whence.cli.dataset_asking import planned
from whence.cli.dataset_plan import print_line, said, show
from whence.cli.dataset_wanted import Wanted
from whence.cli.dataset_work import planned_run
from whence.cli.options import Json
from whence.cli.spreading import spread

if TYPE_CHECKING:
    from whence.cluster.running import Ran
    from whence.cluster.standing import Standing, Watch
    from whence.methods.dataset_plan import DatasetPlan

ENGINES = ("local", "ray", "slurm")
_SAY_SECONDS = 30.0  # between two lines where nobody watches a bar


@spread(Wanted)
def run(
    wanted: Wanted,
    engine: Annotated[
        str, typer.Option(metavar="WORD", callback=one_of(*ENGINES), help=f"Where shards run: {', '.join(ENGINES)}.")
    ] = "local",
    shards: Annotated[int | None, typer.Option(min=1, help="Into how many; one a worker if not given.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many run at once, where whence decides it.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="How often a shard that died is started again.")] = 2,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs: to share out among local workers; else of each shard.")] = 0,
    cpus: Annotated[int | None, typer.Option(min=1, help="Processors of each shard on ray and slurm.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; one is started here if not given.")] = None,
    partition: Annotated[str | None, typer.Option(help="Of SLURM; the cluster's default if not given.")] = None,
    account: Annotated[str | None, typer.Option(help="That SLURM charges.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Shards that SLURM may run at once.")] = None,
    memory_gb: Annotated[
        int | None, typer.Option(min=1, help="Of a shard on SLURM; from the sizes of the run if not given.")
    ] = None,
    minutes: Annotated[
        int | None, typer.Option(min=1, help="Of a shard on SLURM; from the sizes of the run if not given.")
    ] = None,
    shard_seconds: Annotated[
        float | None, typer.Option(min=1, help="How long a shard may take on Ray; as long as it takes if not given.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Compute a run that is planned, or go on with one that was interrupted."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan the run and show what would be done.")] = False,
    json: Json = False,
) -> None:
    """Sum attributions over a dataset: plan, compute the shards, merge."""
    from whence.cluster.on_ray import RayOptions
    from whence.cluster.running import run as run_on
    from whence.cluster.slurm import SlurmOptions

    plan = _plan(wanted, resume)
    ray = RayOptions(address=address, cpus=cpus or RayOptions.cpus, gpus=float(gpus), shard_seconds=shard_seconds)
    asked: dict[str, Any] = {"partition": partition, "account": account, "parallel": parallel}
    asked |= {"memory_gb": memory_gb, "minutes": minutes}
    slurm = SlurmOptions(gpus=gpus, cpus=cpus or SlurmOptions.cpus, **asked)
    options: dict[str, Any] = {"engine": engine, "shards": shards, "workers": workers, "retries": retries}
    with _watched() as watch:
        done = run_on(
            plan.folder, merge=_merged, gpus=gpus, ray=ray, slurm=slurm, dry_run=dry_run, watch=watch, **options
        )
    again = ["--engine", engine, "--workers", str(workers), *([] if shards is None else ["--shards", str(shards)])]
    _finish(plan, done, again if dry_run else None, json)


def _plan(wanted: Wanted, resume: Path | None) -> "DatasetPlan":
    from whence.methods.dataset_plan import read_plan

    if resume is None:
        with progress_bar() as progress:
            return planned(wanted, progress)
    if not wanted.unchanged():
        raise typer.BadParameter("the run is planned: leave model, data and settings away", param_hint="--resume")
    return read_plan(planned_run(resume))


def _merged(folder: Path) -> Path:
    from whence.methods.dataset import merge_run

    say("merging")
    with progress_bar() as progress:
        return merge_run(folder, progress=progress)


def _finish(plan: "DatasetPlan", done: "Ran", again: list[str] | None, json: bool) -> None:
    """Say what was done, or with `again`, the options of a dry run, what would be."""
    jobs = None if done.submitted is None else {"shards": done.submitted.shards, "merge": done.submitted.merge}
    result = None if done.merged is None else str(done.merged)
    if json:
        print_json(said(plan) | {"result": result, "jobs": jobs, "planned": str(done.plan)})
        return
    if again is not None:
        show(plan)
        stdout().print(str(done.plan), soft_wrap=True, markup=False)
        print_line("Next", command_line("dataset", "run", "--resume", str(plan.folder), *again))
        return
    if done.submitted is not None:
        print_line("Jobs", f"{', '.join(done.submitted.shards)}, then {done.submitted.merge} merges")
    print_line("Run", str(plan.folder))
    if result is not None:
        print_line("Result", result)
        print_line("Next", command_line("dataset", "show", str(plan.folder)))


@contextmanager
def _watched() -> "Generator[Watch]":
    """What to tell of shards: a bar on a terminal, a line now and then elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn

    console, last = stderr(), [time.monotonic()]
    columns = (BarColumn(), TextColumn("[dim]{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("starting", total=None)

        def watch(standing: "Standing") -> None:
            bars.update(bar, description=str(standing), completed=standing.windows_done, total=standing.windows)
            if not console.is_terminal and time.monotonic() - last[0] >= _SAY_SECONDS:
                last[0] = time.monotonic()
                say(str(standing))

        yield watch
