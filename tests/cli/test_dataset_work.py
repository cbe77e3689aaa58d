import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from whence.results.dataset import DatasetAttributions
from whence.results.shard_progress import progress_file, read_progress

Whence = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
# Runs the command line where nothing of transformers can be imported.
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "huggingface_hub"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from whence.cli import main
main()
"""


@pytest.fixture(scope="module")
def planned(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same plan as that of the finished run, with nothing computed."""
    import shutil

    (folder,) = done.iterdir()
    fresh = tmp_path_factory.mktemp("planned") / folder.name
    shutil.copytree(folder, fresh, ignore=shutil.ignore_patterns("shards", "result", "logs"))
    return fresh


def start(run: Path, threads: int) -> subprocess.Popen[str]:
    """A worker of the whole run that flushes every window."""
    options = ("--shard", "0/1", "--flush-seconds", "0")
    command = [sys.executable, "-m", "whence", "dataset", "worker", str(run), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def killed_after(run: Path, windows: int, threads: int, signal_number: int) -> int:
    """How a worker ends that is sent a signal once so many windows are done."""
    worker, until = start(run, threads), time.monotonic() + 120
    while time.monotonic() < until and worker.poll() is None:
        progress = read_progress(progress_file(run, 0, 1))
        if progress is not None and progress.windows_done >= windows and progress.pid == worker.pid:
            worker.send_signal(signal_number)
            break
        time.sleep(0.01)
    worker.communicate(timeout=60)
    return worker.returncode


def test_a_killed_worker_goes_on_and_its_sums_are_the_same(
    shell: Shell, done: Path, planned: Path, threads: int
) -> None:
    assert killed_after(planned, 1, threads, signal.SIGKILL) == -signal.SIGKILL
    assert killed_after(planned, 2, threads, signal.SIGTERM) == 128 + signal.SIGTERM
    between = read_progress(progress_file(planned, 0, 1))
    assert between is not None
    assert not between.finished
    last = start(planned, threads)
    said = last.communicate(timeout=120)
    assert (last.returncode, said[0]) == (0, ""), said[1]
    merged = shell("dataset", "merge", str(planned), code=BLOCKED)
    assert merged.returncode == 0, merged.stderr
    assert merged.stdout == f"Result   {planned / 'result'}\n"
    found, whole = DatasetAttributions.load(planned), DatasetAttributions.load(done)
    for pair in whole.header.pairs:
        mine, theirs = found.block(*pair).values, whole.block(*pair).values
        assert float((mine - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max())


def test_loose_shards_merge_and_missing_ones_are_named(whence: Whence, done: Path, tmp_path: Path) -> None:
    (folder,) = done.iterdir()
    shards = sorted(str(one) for one in (folder / "shards").glob("*-of-002"))
    assert whence("dataset", "merge", *reversed(shards), "-o", str(tmp_path / "both")).exit_code == 0
    both, whole = DatasetAttributions.load(tmp_path / "both"), DatasetAttributions.load(done)
    for pair in whole.header.pairs:
        assert both.block(*pair).values.equal(whole.block(*pair).values)
    lost = tmp_path / "run"
    (lost / "shards").mkdir(parents=True)
    for name in ("plan.json", "shards/000-of-002"):
        (lost / name).symlink_to(folder / name)
    refused = whence("dataset", "merge", str(lost))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "window" in refused.stderr
    assert whence("dataset", "merge", str(lost), "--allow-missing", "--embed-top", "3").exit_code == 0
    said = whence("dataset", "show", str(lost)).stdout
    assert "missing" in said


def test_a_run_planned_in_memory_cannot_be_found_again(whence: Whence, planned: Path, tmp_path: Path) -> None:
    text = (planned / "plan.json").read_text()
    start, end = text.index('"load": {'), text.index('"windows"')
    (tmp_path / "plan.json").write_text(text[:start] + '"load": null,\n ' + text[end:])
    result = whence("dataset", "worker", str(tmp_path), "--shard", "0/1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "was planned in Python" in result.stderr
