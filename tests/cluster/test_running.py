import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whence.cluster import run_plan, running
from whence.cluster.job import Command, Job, merge_command, worker_jobs
from whence.cluster.on_ray import RayOptions
from whence.cluster.running import run
from whence.cluster.slurm import SlurmOptions
from whence.cluster.standing import Standing

Jobs = Callable[..., list[Job]]
Lines = Callable[[Job], list[str]]


@pytest.fixture
def shards_of_run(tmp_path: Path, fake_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """A planned run in `tmp_path` whose three shards are computed by the fake worker."""
    plan = {
        "windows": 12,
        "block_elements": 1,
        "block_bytes": 24,
        "batch_bytes": 8,
        "model_bytes": 1,
        "seconds_per_window": 1,
        "settings": {"metrics": ["attr"]},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    jobs = fake_jobs()
    monkeypatch.setattr(run_plan, "worker_jobs", lambda folder, shards, windows: jobs[:shards])
    return jobs


def merging(jobs: list[Job], lines_of: Lines) -> Callable[[Path], Path]:
    """A merge that writes how many windows there are when it is called."""

    def merge(folder: Path) -> Path:
        (folder / "merged").write_text(str(sum(len(lines_of(job)) for job in jobs)))
        return folder / "merged"

    return merge


def test_the_merge_comes_after_all_shards(shards_of_run: list[Job], lines_of: Lines, tmp_path: Path) -> None:
    seen: list[Standing] = []
    ran = run(tmp_path, merge=merging(shards_of_run, lines_of), shards=3, workers=2, watch=seen.append)
    assert ran.merged == tmp_path / "merged"
    assert ran.merged.read_text() == "12"
    assert (ran.plan.at_once, ran.plan.seconds, ran.submitted) == (2, 8.0, None)
    assert seen[-1].windows_done == 12


def test_on_ray_the_merge_comes_after_all_shards(
    shards_of_run: list[Job], lines_of: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, RayOptions | None]] = []

    def run_on_ray(jobs: list[Job], *, workers: int, retries: int, options: RayOptions, watch: object) -> None:
        asked.append((workers, options))
        for job in jobs:
            Path(job.command[2]).parent.mkdir(exist_ok=True)
            Path(job.command[2]).write_text("window\n")

    monkeypatch.setattr(running, "run_on_ray", run_on_ray)
    options = RayOptions(address="auto")
    ran = run(tmp_path, engine="ray", merge=merging(shards_of_run, lines_of), shards=3, ray=options)
    assert (tmp_path / "merged").read_text() == "3"
    assert asked == [(1, options)]
    assert ran.plan.at_once is None, "the size of the cluster decides"


def test_on_slurm_the_merge_is_a_job(
    shards_of_run: list[Job], lines_of: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (sys.executable, "-c", f"import pathlib; pathlib.Path({str(tmp_path / 'by_job')!r}).touch()")
    command = Command("the merge", program, tmp_path / "merge.log")
    monkeypatch.setattr(running, "merge_command", lambda folder: command)
    options = SlurmOptions("local", cpus=1, parallel=2)
    ran = run(tmp_path, engine="slurm", merge=merging(shards_of_run, lines_of), shards=3, slurm=options)
    assert (tmp_path / "by_job").exists()
    assert not (tmp_path / "merged").exists()
    assert ran.merged is None
    assert ran.submitted is not None
    assert len(ran.submitted.shards) == 3
    assert ran.plan.at_once == 2


def test_a_dry_run_starts_nothing(shards_of_run: list[Job], lines_of: Lines, tmp_path: Path) -> None:
    ran = run(tmp_path, merge=merging(shards_of_run, lines_of), shards=3, workers=3, dry_run=True)
    assert [name for name, _, _ in ran.plan.rows()] == [job.name for job in shards_of_run]
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_the_commands_are_those_of_the_command_line(tmp_path: Path) -> None:
    [first, last] = worker_jobs(tmp_path, 2, windows=5)
    assert first.command == (sys.executable, "-m", "whence", "dataset", "worker", str(tmp_path), "--shard", "0/2")
    assert (last.windows, last.progress) == (3, tmp_path / "shards" / "001-of-002.progress.json")
    assert last.log == tmp_path / "logs" / "001-of-002.log"
    assert merge_command(tmp_path).command == (sys.executable, "-m", "whence", "dataset", "merge", str(tmp_path))
