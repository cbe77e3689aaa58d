import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dataset_killed
from dataset_runs import Stopped, documents, given, model, planned, same_bits, sharded, stopping
from whence.engine.dataset.kernels import Kernels
from whence.errors import FileFormatError
from whence.methods.dataset_plan import DatasetPlan, read_plan
from whence.methods.dataset_shard import run_shard
from whence.results.dataset_store import open_store
from whence.results.shard_progress import read_progress


def beside(plan: DatasetPlan, folder: Path) -> DatasetPlan:
    """The same plan in another place, where nothing is summed yet."""
    shutil.copytree(plan.folder, folder, ignore=shutil.ignore_patterns("shards"))
    return read_plan(folder)


def killed_often(tmp_path: Path, kills: int, windows: int) -> list[int]:
    """Windows in the store after each kill; the finished store is that of a process that nobody killed."""
    plan = planned(tmp_path, documents(2 * windows), fold=1)
    assert plan.windows == windows
    other = beside(plan, tmp_path / "killed")
    command = [sys.executable, dataset_killed.__file__, str(other.folder), str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
    sharded(plan)
    same_bits(open_store(plan.shard_folder(0, 1)), open_store(other.shard_folder(0, 1)))
    return [int(line) for line in done.stdout.split()]


def test_a_worker_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    after = killed_often(tmp_path, 5, 24)
    assert (len(after), after) == (5, sorted(after))
    assert 0 < after[-1] < 24


@pytest.mark.slow
def test_a_worker_killed_fifty_times_ends_with_the_same_bits(tmp_path: Path) -> None:
    after = killed_often(tmp_path, 50, 200)
    assert (len(after), after) == (50, sorted(after))
    assert 0 < after[-1] < 200


def test_an_exception_in_the_middle_of_a_window_loses_that_window_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path)
    other, calls, count = beside(plan, tmp_path / "stopped"), [], Kernels.count

    def stops(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # the second batch of the third window
            raise Stopped
        return count(*args)

    monkeypatch.setattr(Kernels, "count", stops)
    with pytest.raises(Stopped):
        run_shard(other, model(), given(), flush_seconds=0.0)
    assert open_store(other.shard_folder(0, 1)).header.windows == (0, 1)
    sharded(plan)
    sharded(other)
    same_bits(open_store(plan.shard_folder(0, 1)), open_store(other.shard_folder(0, 1)))


def test_a_finished_shard_is_left_as_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path, batches=2)
    (folder,) = sharded(plan)
    before = (folder / "result.json").read_bytes()
    sharded(plan)
    assert (folder / "result.json").read_bytes() == before
    told = read_progress(folder.with_suffix(".progress.json"))
    assert told is not None
    assert (told.windows_done, told.windows, told.finished) == (1, 1, True)


def test_what_a_process_began_before_its_first_store_is_begun_again(tmp_path: Path) -> None:
    plan = planned(tmp_path, batches=2)
    folder = plan.shard_folder(0, 1)
    (folder / "blocks-0").mkdir(parents=True)
    assert open_store(*sharded(plan)).header.windows == (0,)
    assert not (folder / "blocks-0").exists()


def test_the_sums_of_another_run_in_a_shard_s_place_are_refused(tmp_path: Path) -> None:
    plan, other = planned(tmp_path / "one", batches=2), planned(tmp_path / "two", batches=2, weighting="target")
    shutil.copytree(sharded(other)[0], plan.shard_folder(0, 1))
    with pytest.raises(FileFormatError, match=r"000-of-001 holds another run's sums; remove it, or plan a new run"):
        sharded(plan)


def test_sites_that_count_nowhere_in_the_first_windows_resume_to_the_same_bits(tmp_path: Path) -> None:
    components = given()
    plan = planned(tmp_path, weighting="target", min_importance=0.9)
    other = beside(plan, tmp_path / "resumed")
    run_shard(plan, model(), components)
    for last in (1, 3):
        with pytest.raises(Stopped):
            run_shard(other, model(), components, flush_seconds=0.0, progress=stopping(last))
        assert len(open_store(other.shard_folder(0, 1)).header.windows) == last
    run_shard(other, model(), components)
    same_bits(open_store(plan.shard_folder(0, 1)), open_store(other.shard_folder(0, 1)))
    assert torch.is_tensor(open_store(plan.shard_folder(0, 1)).extra("gram"))
