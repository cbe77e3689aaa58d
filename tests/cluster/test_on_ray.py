import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whence.cluster import on_ray
from whence.cluster.job import Job
from whence.cluster.on_ray import RayOptions, run_on_ray
from whence.cluster.standing import Standing
from whence.errors import WhenceError

Jobs = Callable[..., list[Job]]
Lines = Callable[[Job], list[str]]
Pid = Callable[[Job, int], int]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def listening(environment_holds: str) -> set[str]:
    """Addresses on which the processes listen that have this text in their environment or command line."""
    inodes: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if environment_holds.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                inodes |= {os.readlink(entry) for entry in (process / "fd").iterdir()}
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].split(":")[0])
    return found


def test_shards_run_on_loopback_and_killed_ones_lose_nothing(fake_jobs: Jobs, lines_of: Lines, pid_at: Pid) -> None:
    jobs = fake_jobs(shards=3, windows=6, seconds=0.4, shard_2=["--crash-at", "3"])
    addresses: set[str] = set()

    def kill() -> None:
        os.kill(pid_at(jobs[0], 2), signal.SIGKILL)  # the shard's command
        worker = pid_at(jobs[1], 2)
        addresses.update(listening("whence-ray-"))
        os.kill(parent_of(worker), signal.SIGKILL)  # Ray's worker, and with it the command

    thread, seen = threading.Thread(target=kill), list[Standing]()
    thread.start()
    run_on_ray(jobs, workers=3, options=RayOptions(start_seconds=60.0, shard_seconds=60.0), watch=seen.append)
    thread.join()
    assert [lines_of(job) for job in jobs] == [[f"window {window}" for window in range(6)]] * 3
    assert [job.log.read_text().count("begins at window") for job in jobs] == [2, 2, 2]
    assert (seen[-1].shards_done, seen[-1].windows_done) == (3, 18)
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}, "127.0.0.1, as the kernel spells it"


def test_a_shard_that_always_dies_is_named(fake_jobs: Jobs) -> None:
    dying = fake_jobs(shards=1, shard_0=["--crash-at", "1", "--always"])
    with pytest.raises(WhenceError, match=r"(?s)000-of-001 ended with exit status 1.*worker crashes.*again 1 times"):
        run_on_ray(dying, retries=1, options=RayOptions(start_seconds=60.0))


def test_a_shard_that_takes_too_long_is_ended(fake_jobs: Jobs) -> None:
    with pytest.raises(WhenceError, match=r"(?s)000-of-001 took longer than the 1 seconds.*begins at window"):
        run_on_ray(fake_jobs(shards=1, windows=1000, seconds=0.1), options=RayOptions(shard_seconds=1.0))


def test_a_missing_ray_is_a_sentence(fake_jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WhenceError, match=r"pip install 'whence\[ray\]'"):
        run_on_ray(fake_jobs())


def test_a_cluster_that_does_not_come_up_is_a_sentence_in_time(fake_jobs: Jobs) -> None:
    began = time.monotonic()
    with pytest.raises(WhenceError, match=r"Ray cluster \(127.0.0.1:1\) did not come up in 3 seconds"):
        run_on_ray(fake_jobs(), options=RayOptions(address="127.0.0.1:1", start_seconds=3.0))
    assert time.monotonic() - began < 20
