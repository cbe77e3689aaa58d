from pathlib import Path

import pytest

from dataset_runs import Stopped, given, merged, model, planned, sharded, stopping
from whence.errors import FileFormatError
from whence.methods.dataset import merge_run
from whence.methods.dataset_examples import top_examples
from whence.methods.dataset_shard import run_shard
from whence.results.dataset import DatasetAttributions
from whence.results.dataset_store import open_store

ALIKE = [[5, 6, 7, 8]] * 20  # halves of it agree
STOPPING = {"fold": 1, "stop_at": 0.9}


def test_a_run_over_repetitive_data_stops_early_and_says_so(tmp_path: Path) -> None:
    header = merged(planned(tmp_path, ALIKE, **STOPPING)).header
    assert (header.windows, header.tokens) == ((0, 1, 2, 3), 4 * 2 * 4)
    assert header.provenance["shards"][0]["provenance"]["stopped_early"] is True
    assert "missing" not in header.provenance


def test_each_shard_stops_by_itself_and_what_it_left_is_not_missing(tmp_path: Path) -> None:
    header = merged(planned(tmp_path, ALIKE, **STOPPING), 2).header
    assert header.windows == (0, 1, 2, 3, 5, 6, 7, 8)


def test_a_run_whose_halves_never_agree_reads_everything(tmp_path: Path) -> None:
    header = merged(planned(tmp_path, fold=1, batches=5, stop_at=1.0)).header
    assert len(header.windows) == 5
    assert header.provenance["shards"][0]["provenance"]["stopped_early"] is False


def test_a_stopped_run_that_is_interrupted_stops_at_the_same_window(tmp_path: Path) -> None:
    plan = planned(tmp_path, ALIKE, **STOPPING)
    for last in (2, 3):
        with pytest.raises(Stopped):
            run_shard(plan, model(), given(), flush_seconds=0.0, progress=stopping(last))
    assert open_store(*sharded(plan)).header.windows == (0, 1, 2, 3)


def test_windows_that_nobody_meant_to_leave_out_are_missing(tmp_path: Path) -> None:
    plan = planned(tmp_path, ALIKE, **STOPPING)
    with pytest.raises(Stopped):
        run_shard(plan, model(), given(), flush_seconds=0.0, progress=stopping(2))
    with pytest.raises(FileFormatError, match="windows 2-9 are missing"):
        merge_run(plan.folder)
    (plan.shard_folder(0, 1) / "result.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"result\.json"):
        merge_run(plan.folder)


def test_examples_of_a_stopped_run_are_those_that_were_summed(tmp_path: Path) -> None:
    result = DatasetAttributions(merged(planned(tmp_path, ALIKE, **STOPPING)))
    edge = "embed:6", "0.attn.q:0"
    found = top_examples(tmp_path, model(), given().parameters, *edge, k=100)
    assert len(found) == 4 * 2
    assert sum(one.value for one in found) == pytest.approx(result.between(*edge, normalise="none").value, rel=1e-5)
