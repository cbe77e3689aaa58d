"""Shards as tasks on a Ray cluster, tried again when they die; what a killed one had flushed is kept.

A cluster is joined by its address, or one is started on this machine for the run: on loopback alone, without usage
statistics or dashboard, with a token of its own. All machines of a cluster must see the run's folder under the same
path, and have whence installed. The cluster is given a time to come up and each shard a time to run, and everything
this run has started ends with it (`ray_program.py`). Cost: a few seconds
and about a gigabyte for a cluster of one's own.
"""

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whence.cluster.attempt import last_lines
from whence.cluster.job import Job
from whence.cluster.leash import leashed
from whence.cluster.standing import Tally, Watch, unwatched
from whence.errors import WhenceError

_SHORT = "/tmp" if Path("/tmp").is_dir() else None  # a socket lies there, whose path may have 107 bytes
_GRACE = 10.0  # seconds for a cluster of one's own to end


@dataclass(frozen=True)
class RayOptions:
    """How shards run on Ray.

    Args:
        address: Of the cluster, as `ray.init` takes it; None starts one on this machine, for this run.
        cpus: Processors that a shard takes.
        gpus: GPUs that a shard takes; a part of one where several shards share it.
        start_seconds: How long the cluster may take to come up.
        shard_seconds: How long a shard may take; None for as long as it takes.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    start_seconds: float = 120.0
    shard_seconds: float | None = None


def run_on_ray(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    retries: int = 2,
    options: RayOptions | None = None,
    watch: Watch = unwatched,
    interval: float = 0.2,
) -> None:
    """Every shard, computed as a task of Ray; what was computed before is not computed again.

    Args:
        jobs: The shards.
        workers: How many run at once on a cluster that is started here; another cluster decides by its size.
        retries: How often a shard is tried again after it died, or after its machine did.
        options: See `RayOptions`.
        watch: Called with how far the run is, every `interval`.
        interval: Seconds between two looks.

    Raises:
        WhenceError: Ray is not installed; the cluster did not come up in time; or a shard died more often than it may
            or took too long: names it, and the last lines of its log. The others are ended too; what each has flushed
            is kept.

    Example:
        >>> run_on_ray(worker_jobs("run", 4, windows=100), workers=2)  # doctest: +SKIP
    """
    options = options or RayOptions()
    if importlib.util.find_spec("ray") is None:
        raise WhenceError("Ray is not installed. Run `pip install 'whence[ray]'`, or choose another engine.")
    with tempfile.TemporaryDirectory(prefix="whence-ray-", dir=_SHORT, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        request = _request(jobs, workers, retries, options, folder)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _Program(folder, options).run(Tally(jobs), watch, interval)


class _Program:
    """The process that talks to Ray, and what it has said so far."""

    def __init__(self, folder: Path, options: RayOptions) -> None:
        self._folder, self._options = folder, options
        self._log, self._started = folder / "log", time.monotonic()
        command = leashed((sys.executable, "-m", "whence.cluster.ray_program", str(folder)))
        with self._log.open("wb") as log:
            environment = {**os.environ, **_environment(options)}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def run(self, tally: Tally, watch: Watch, interval: float) -> None:
        try:
            while self._process.poll() is None:
                self._check_start()
                watch(tally.standing())
                time.sleep(interval)
            self._check_outcome()
            watch(tally.standing())
        finally:
            self._stop()

    def _check_start(self) -> None:
        if time.monotonic() - self._started > self._options.start_seconds and not self._up():
            where = self._options.address or "on this machine"
            raise WhenceError(
                f"the Ray cluster ({where}) did not come up in {self._options.start_seconds:g} seconds. Give it "
                f"longer, or see that it runs. {last_lines(self._log)}"
            )

    def _up(self) -> bool:
        return (self._folder / "up").exists()

    def _check_outcome(self) -> None:
        outcome = self._folder / "outcome.json"
        if not outcome.exists():
            raise WhenceError(f"the process that talks to Ray ended before the shards did. {last_lines(self._log)}")
        failure = json.loads(outcome.read_text(encoding="utf-8"))["failure"]
        if failure is not None:
            raise WhenceError(failure)

    def _stop(self) -> None:
        """Let a cluster of one's own end in order; what hangs is killed, and takes what it has started with it."""
        if self._up():
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self._process.kill()
        self._process.wait()


def _request(jobs: Sequence[Job], workers: int, retries: int, options: RayOptions, folder: Path) -> dict[str, Any]:
    said = [{**asdict(job), "progress": str(job.progress), "log": str(job.log)} for job in jobs]
    return {"jobs": said, "workers": workers, "retries": retries, "scratch": str(folder / "ray"), **asdict(options)}


def _environment(options: RayOptions) -> dict[str, str]:
    """What Ray must be told before it is imported."""
    everywhere = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if options.address:
        return everywhere
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # or it listens on the machine's own address
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # or it leaves one in the home folder
    return {**everywhere, **loopback, **token}
