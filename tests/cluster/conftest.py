import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from whence.cluster.job import Job
from whence.results.shard_progress import read_progress, shard_name

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture
def fake_jobs(tmp_path: Path) -> Callable[..., list[Job]]:
    """Shards whose command is the fake worker; options by shard are added to its command."""

    def fake_jobs(shards: int = 3, windows: int = 4, seconds: float = 0.0, **options: list[str]) -> list[Job]:
        jobs: list[Job] = []
        for shard in range(shards):
            name = shard_name(shard, shards)
            state, progress = tmp_path / "shards" / name, tmp_path / "shards" / f"{name}.progress.json"
            more = options.get(f"shard_{shard}", [])
            arguments = [str(state), str(progress), str(windows), "--seconds", str(seconds), *more]
            command = (sys.executable, str(FAKE), *arguments)
            jobs.append(Job(f"shard {name}", command, tmp_path / "logs" / f"{name}.log", progress, windows))
        return jobs

    return fake_jobs


@pytest.fixture
def lines_of() -> Callable[[Job], list[str]]:
    """What a fake worker has computed: a line for each window."""
    return lambda job: Path(job.command[2]).read_text().splitlines()


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether a process has ended, even where nobody has taken note of it yet."""

    def gone(pid: int) -> bool:
        with suppress(FileNotFoundError):
            return "zombie" in Path(f"/proc/{pid}/status").read_text()
        return True

    return gone


@pytest.fixture
def pid_at() -> Callable[[Job, int], int]:
    """Waits until a shard has done so many windows and returns the process that computes it."""

    def pid_at(job: Job, windows: int) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            progress = read_progress(job.progress)
            if progress is not None and progress.windows_done >= windows:
                return progress.pid
            time.sleep(0.02)
        raise TimeoutError(f"{job.name} has not done {windows} windows")

    return pid_at
