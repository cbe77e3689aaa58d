"""`whence dataset worker` and `whence dataset merge`: a shard computed, and shards added up without any model."""

import logging
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from whence.cli.asking import check_part, part
from whence.cli.console import progress_bar
from whence.cli.dataset_options import OneRun
from whence.cli.dataset_plan import print_line

_TERMINATED = 128 + signal.SIGTERM


def worker(
    run: OneRun,
    shard: Annotated[str, typer.Option(metavar="I/N", callback=check_part, help="Which shard: 0/4 is the first of 4.")],
    device: Annotated[str | None, typer.Option(help="Where the model runs, if not where the plan says.")] = None,
    flush_seconds: Annotated[
        float, typer.Option(min=0, help="Write the sums at the first window's end after so many seconds.")
    ] = 60.0,
) -> None:
    """Compute one shard of a planned run, or go on where it stopped: what it had written when it was killed counts."""
    from whence.cli.dataset_asking import found_again
    from whence.engine.dataset.named import sorted_out
    from whence.methods.dataset_plan import read_plan
    from whence.methods.dataset_shard import run_shard

    number, count = part(shard)
    _log_to_stderr()
    with _ending_on_request():
        plan = read_plan(planned_run(run))
        model, units = found_again(plan, device)
        with progress_bar() as progress:
            run_shard(plan, model, sorted_out(units), number, count, flush_seconds=flush_seconds, progress=progress)


def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN | SHARD...", help="A planned run; or loose shards, with -o.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Where to write what loose shards sum to.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without shards and windows that are missing; says which.")
    ] = False,
    embed_top: Annotated[
        int | None, typer.Option(min=1, help="Keep only so many source tokens of each target, and the sums of all.")
    ] = None,
) -> None:
    """Add the shards of a run up, block by block. It needs neither the model nor the components."""
    from whence.cli.loading import show_warnings
    from whence.results.dataset_merge import merge_stores

    show_warnings()
    options: dict[str, Any] = {"allow_missing": allow_missing, "embed_top": embed_top}
    with progress_bar() as progress:
        if output is not None:
            made = merge_stores(runs, output, expected=None, **options, progress=progress)
        elif len(runs) == 1:
            from whence.methods.dataset import merge_run

            made = merge_run(planned_run(runs[0]), **options, progress=progress)
        else:
            raise typer.BadParameter("several shards are merged into a new store; it needs -o OUT")
    print_line("Result", str(made))


def planned_run(path: Path) -> Path:
    """The sub-run that a path means: itself, or the newest that is planned below it."""
    from whence.methods.dataset_plan import PLAN
    from whence.results.dataset_runs import subruns

    if (path / PLAN).is_file():
        return path
    return next((one for one in subruns(path) if (one / PLAN).is_file()), path)


def _log_to_stderr() -> None:
    logger = logging.getLogger("whence")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


@contextmanager
def _ending_on_request() -> "Generator[None]":
    """SIGTERM ends the process by way of every `finally`, so that no half-written file stays."""

    def end(*_: object) -> None:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
