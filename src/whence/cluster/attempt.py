"""One start of a command: a process of its own, its log, and a sentence for how it ended."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from whence.cluster.job import Command
from whence.cluster.leash import leashed
from whence.errors import WhenceError

_GRACE = 5.0  # seconds between asking a process to end and killing it
_TAIL = 8192  # bytes of a log that are looked at for its last lines


class ShardDied(WhenceError):
    """A shard's command that did not end well; started again, it goes on from what it has flushed."""


class ShardTooSlow(WhenceError):
    """A shard's command that took longer than it was given."""


class Attempt:
    """A running command, in a session of its own: a terminal's Ctrl-C reaches its supervisor alone.

    Args:
        job: The command.
        environment: Added to this process's environment.
    """

    def __init__(self, job: Command, environment: Mapping[str, str]) -> None:
        self.job = job
        self.started = time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            log.write(f"--- {job.name}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                leashed(job.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether the command has ended, well or not."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Nothing where an ended command ended well.

        Raises:
            ShardDied: It did not; names the shard, how it ended and the last lines of its log.
        """
        status = self._process.returncode
        if status:
            raise ShardDied(f"{self.job.name} ended with {_spelled(status)}. {last_lines(self.job.log)}")

    def stop(self) -> None:
        """End the command where it has not ended: asked first, then killed."""
        if self.ended():
            return
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_attempt(job: Command, environment: Mapping[str, str], seconds: float | None) -> None:
    """Run a command to its end.

    Args:
        job: The command.
        environment: Added to this process's environment.
        seconds: How long it may take; None for as long as it takes.

    Raises:
        ShardDied: The command did not end well.
        ShardTooSlow: It took longer than `seconds`, and was ended.

    Example:
        >>> run_attempt(job, {"OMP_NUM_THREADS": "4"}, seconds=3600)  # doctest: +SKIP
    """
    attempt = Attempt(job, environment)
    try:
        while not attempt.ended():
            if seconds is not None and time.monotonic() - attempt.started > seconds:
                raise ShardTooSlow(
                    f"{job.name} took longer than the {seconds:g} seconds it was given. What it flushed is kept: "
                    f"run again with more time, or cut the run into more shards. {last_lines(job.log)}"
                )
            time.sleep(0.05)
        attempt.check()
    finally:
        attempt.stop()


def after_deaths(retries: int) -> str:
    """What to say of a shard that died more often than it may.

    Args:
        retries: How often it was started again.
    """
    return (
        f"It was started again {retries} times. What the shards have flushed is kept: once the cause is gone, the same "
        "run goes on from there."
    )


def last_lines(log: Path, lines: int = 12) -> str:
    """The end of a log, as messages show it.

    Args:
        log: The file.
        lines: How many of its last lines.
    """
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL))
        text = stream.read().decode("utf-8", "replace")
    return f"The last lines of {log}:\n" + "\n".join(text.splitlines()[-lines:])


def _spelled(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"signal {-status} ({signal.Signals(-status).name})"
    return f"signal {-status}"
