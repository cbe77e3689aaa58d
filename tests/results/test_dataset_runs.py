import logging
from pathlib import Path

import pytest

import dataset_stores as small
from whence.errors import FileFormatError
from whence.results.dataset_runs import find_result, new_subrun, subruns


def _finished(out: Path, name: str) -> Path:
    return small.store(out / name / "result", (0,))


def test_sub_runs_of_one_second_have_their_own_names_in_order(tmp_path: Path) -> None:
    made = [new_subrun(tmp_path / "deep" / "runs") for _ in range(3)]

    assert len(set(made)) == 3
    assert subruns(tmp_path / "deep" / "runs") == made[::-1]


def test_the_newest_finished_sub_run_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = _finished(tmp_path, "da-20260131_235959")
    _finished(tmp_path, "da-20251231_235959")
    small.store(tmp_path / "da-20260201_000000" / "shards" / "000-of-002", (0,))
    damaged = _finished(tmp_path, "da-20260202_000000") / "result.json"
    damaged.write_text(damaged.read_text().replace("tokens", "takens", 1))

    with caplog.at_level(logging.INFO):
        found = find_result(tmp_path)

    assert found == wanted
    assert "da-20260201_000000: not merged; 1 shards begun" in caplog.text
    assert "da-20260202_000000" in caplog.text


@pytest.mark.parametrize(
    "name", ["da-timing-1", "da-20269999_000000", "da-overnight", "da-20260131_235959-copy", "x-da-20260131_235959"]
)
def test_names_that_are_no_dates_never_shadow_a_run(tmp_path: Path, name: str) -> None:
    _finished(tmp_path, name)
    wanted = _finished(tmp_path, "da-20250101_000000")

    assert find_result(tmp_path) == wanted


def test_a_store_and_a_sub_run_are_found_by_their_own_paths(tmp_path: Path) -> None:
    result = _finished(tmp_path, "da-20250101_000000")

    assert find_result(result) == result
    assert find_result(result.parent) == result


def test_what_was_seen_is_listed_where_nothing_is_finished(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="it is empty"):
        find_result(tmp_path)
    with pytest.raises(FileFormatError, match="no such folder"):
        find_result(tmp_path / "absent")

    (tmp_path / "notes").mkdir()
    with pytest.raises(FileFormatError, match="no sub-run da-YYYYMMDD_HHMMSS among notes"):
        find_result(tmp_path)

    subrun = tmp_path / "da-20250101_000000"
    small.store(subrun / "shards" / "000-of-002", (0,))
    for path in (tmp_path, subrun):
        with pytest.raises(FileFormatError, match="not merged; 1 shards begun"):
            find_result(path)
