import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whence.errors import FileFormatError
from whence.results.shard_progress import (
    ShardProgress,
    progress_file,
    read_progress,
    shard_name,
    shard_windows,
    write_progress,
)

SAID = ShardProgress(3, 7, 300, 1.5, 2**30, False)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = progress_file(tmp_path, 2, 12)
    assert file == tmp_path / "shards" / "002-of-012.progress.json"
    assert read_progress(file) is None
    write_progress(file, SAID)
    assert read_progress(file) == SAID
    assert SAID.pid == os.getpid()
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file, seen = tmp_path / "progress.json", set[int]()
    write_progress(file, replace(SAID, windows_done=0))

    def write() -> None:
        for window in range(1, 300):
            write_progress(file, replace(SAID, windows_done=window))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        said = read_progress(file)
        assert said is not None
        seen.add(said.windows_done)
    writer.join()
    assert seen <= set(range(300))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"windows_done": 1}', '{"more": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "progress.json"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=r"progress\.json does not say how far"):
        read_progress(file)


@given(windows=st.integers(1, 500), shards=st.integers(1, 40))
def test_the_shards_share_out_all_windows_in_order_and_evenly(windows: int, shards: int) -> None:
    parts = [shard_windows(windows, shard, shards) for shard in range(shards)]
    assert [window for part in parts for window in part] == list(range(windows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shard", [-1, 3])
def test_shards_are_counted_from_zero(shard: int) -> None:
    with pytest.raises(ValueError, match="counted from 0, so the last is 2"):
        shard_name(shard, 3)
