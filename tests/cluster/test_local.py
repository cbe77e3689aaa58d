import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from whence.cluster.attempt import ShardDied
from whence.cluster.job import Job
from whence.cluster.local import processors, run_local
from whence.cluster.standing import Standing
from whence.errors import WhenceError

Jobs = Callable[..., list[Job]]
Lines = Callable[[Job], list[str]]
ALL = [f"window {window}" for window in range(4)]


def soon(claim: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not claim() and time.monotonic() < until:
        time.sleep(0.05)
    return claim()


def test_every_shard_is_computed_and_watched_to_its_end(fake_jobs: Jobs, lines_of: Lines) -> None:
    jobs, seen = fake_jobs(), list[Standing]()
    run_local(jobs, workers=2, watch=seen.append, interval=0.02)
    assert [lines_of(job) for job in jobs] == [ALL] * 3
    last = seen[-1]
    assert (last.shards_done, last.windows_done, last.windows, last.tokens) == (3, 12, 12, 120)
    assert last.seconds_left == 0
    assert last.tokens_per_second is not None


def test_the_machine_is_divided_among_the_workers(fake_jobs: Jobs) -> None:
    jobs = fake_jobs(shards=2)
    run_local(jobs, workers=2, interval=0.02)
    assert f"with {max(1, processors() // 2)} threads on None" in jobs[0].log.read_text()


def test_workers_take_the_gpus_that_this_process_sees_in_turn(fake_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    jobs = fake_jobs(shards=2, seconds=0.05)
    run_local(jobs, workers=2, gpus=2, interval=0.02)
    assert [job.log.read_text().split()[-1] for job in jobs] == ["4", "6"]


def test_a_worker_that_exits_badly_goes_on_where_it_stopped(fake_jobs: Jobs, lines_of: Lines) -> None:
    jobs = fake_jobs(shard_1=["--crash-at", "2"])
    run_local(jobs, workers=3, retries=1, interval=0.02)
    assert lines_of(jobs[1]) == ALL
    log = jobs[1].log.read_text()
    assert "begins at window 0" in log
    assert "the worker crashes" in log
    assert "begins at window 2" in log


def test_a_killed_worker_loses_nothing(fake_jobs: Jobs, lines_of: Lines, pid_at: Callable[[Job, int], int]) -> None:
    jobs = fake_jobs(shards=2, seconds=0.1)
    thread = threading.Thread(target=lambda: os.kill(pid_at(jobs[0], 2), signal.SIGKILL))
    thread.start()
    run_local(jobs, workers=2, interval=0.02)
    thread.join()
    assert lines_of(jobs[0]) == ALL
    assert jobs[0].log.read_text().count("begins at window") == 2


def test_a_worker_that_always_dies_is_named_with_the_end_of_its_log(fake_jobs: Jobs) -> None:
    jobs = fake_jobs(shard_1=["--crash-at", "1", "--always"])
    with pytest.raises(ShardDied, match=r"(?s)001-of-003 ended with exit status 1.*the worker crashes.*again 2 times"):
        run_local(jobs, workers=1, retries=2, interval=0.02)
    assert jobs[1].log.read_text().count("begins at window") == 3


def test_a_signal_is_named(fake_jobs: Jobs, pid_at: Callable[[Job, int], int]) -> None:
    jobs = fake_jobs(shards=1, seconds=0.2)
    thread = threading.Thread(target=lambda: os.kill(pid_at(jobs[0], 1), signal.SIGKILL))
    thread.start()
    with pytest.raises(ShardDied, match=r"signal 9 \(SIGKILL\)"):
        run_local(jobs, retries=0, interval=0.02)
    thread.join()


def test_a_run_that_is_interrupted_ends_its_workers(
    fake_jobs: Jobs, pid_at: Callable[[Job, int], int], gone: Callable[[int], bool]
) -> None:
    jobs = fake_jobs(shards=2, windows=1000, seconds=0.1)

    def interrupt(standing: Standing) -> None:
        if standing.windows_done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_local(jobs, workers=2, watch=interrupt, interval=0.02)
    assert all(gone(pid_at(job, 1)) for job in jobs if job.progress.exists())


def test_workers_die_with_a_killed_supervisor(
    fake_jobs: Jobs, pid_at: Callable[[Job, int], int], gone: Callable[[int], bool]
) -> None:
    [job] = fake_jobs(shards=1, windows=1000, seconds=0.1)
    program = (
        "from pathlib import Path\nfrom whence.cluster.job import Job\nfrom whence.cluster.local import run_local\n"
        f"run_local([Job({job.name!r}, {job.command!r}, Path({str(job.log)!r}), Path({str(job.progress)!r}), 1000)])"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program])
    worker = pid_at(job, 1)
    supervisor.kill()
    supervisor.wait()
    assert soon(lambda: gone(worker))


def test_a_command_that_does_not_exist_is_said_in_the_log(fake_jobs: Jobs) -> None:
    [job] = fake_jobs(shards=1)
    with pytest.raises(WhenceError, match="No such file"):
        run_local([replace(job, command=("/no/such/program",))], retries=0, interval=0.02)


@pytest.mark.parametrize(("workers", "retries", "gpus"), [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_numbers_that_mean_nothing_are_refused(fake_jobs: Jobs, workers: int, retries: int, gpus: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers}, retries={retries}, gpus={gpus}"):
        run_local(fake_jobs(), workers=workers, retries=retries, gpus=gpus)
