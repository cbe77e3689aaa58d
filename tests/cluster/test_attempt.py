import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whence.cluster.attempt import ShardDied, ShardTooSlow, last_lines, run_attempt
from whence.cluster.job import Command, Job

Jobs = Callable[..., list[Job]]


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Command]:
    return lambda text: Command("the program", (sys.executable, "-c", text), tmp_path / "logs" / "program.log")


def test_what_a_command_writes_is_kept_in_its_log_behind_what_is_there(program: Callable[[str], Command]) -> None:
    for word in ("first", "second"):
        run_attempt(program(f"import sys; print({word!r}); print({word!r} + '!', file=sys.stderr)"), {}, None)
    log = program("").log.read_text()
    assert log.count("--- the program, ") == 2
    assert log.index("first!") < log.index("second")


def test_the_environment_is_added_to_that_of_this_process(
    program: Callable[[str], Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_TEST_KEPT", "kept")
    reads = program("import os; print(os.environ['WHENCE_TEST_KEPT'], os.environ['WHENCE_TEST_ADDED'])")
    run_attempt(reads, {"WHENCE_TEST_ADDED": "added"}, None)
    assert "kept added" in reads.log.read_text()


@pytest.mark.parametrize(
    ("text", "how"),
    [("raise SystemExit(7)", "exit status 7"), ("import os; os.kill(os.getpid(), 11)", r"signal 11 \(SIGSEGV\)"),
     ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)", "signal 37")],
)  # fmt: skip
def test_how_a_command_ended_is_said(program: Callable[[str], Command], text: str, how: str) -> None:
    with pytest.raises(ShardDied, match=f"the program ended with {how}"):
        run_attempt(program(text), {}, None)


def test_a_command_that_takes_too_long_is_ended_even_if_it_does_not_want_to(
    program: Callable[[str], Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.cluster.attempt._GRACE", 0.2)
    stubborn = program("import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(ShardTooSlow, match=r"the program took longer than the 1\.5 seconds"):
        run_attempt(stubborn, {}, 1.5)
    assert time.monotonic() - began < 20


def test_a_signal_that_ends_this_process_ends_the_command(
    fake_jobs: Jobs, pid_at: Callable[[Job, int], int], gone: Callable[[int], bool]
) -> None:
    [job] = fake_jobs(shards=1, windows=1000, seconds=0.02)

    def leave(number: int, frame: object) -> None:
        pid_at(job, 1)
        raise SystemExit(3)

    before = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(SystemExit):
            run_attempt(job, {}, None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gone(pid_at(job, 1))


def test_the_end_of_a_long_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(f"line {line}\n".encode() for line in range(100_000)) + b"\xff damaged\n")
    shown = last_lines(log, 3).splitlines()
    assert shown == [f"The last lines of {log}:", "line 99998", "line 99999", "\ufffd damaged"]
