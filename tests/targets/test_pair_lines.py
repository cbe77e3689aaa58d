import json

import pytest

from whence.errors import FileFormatError
from whence.targets import pair_lines
from whence.targets.pair_lines import PairText, read_lines, write_lines

PAIR = PairText("The pilots", " are", "The pilot", " is", "plural")
LINE = {"clean_prefix": "a", "clean_answer": " b"}


@pytest.fixture
def file(tmp_path):
    def file(*lines):
        path = tmp_path / "pairs.json"
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
        return path

    return file


def test_what_is_written_is_read(tmp_path):
    pairs = [PAIR, PairText("Ünïcode", " x", "Üñïcode", " y", "")]
    write_lines(tmp_path / "pairs.json", pairs)
    assert read_lines(tmp_path / "pairs.json") == [(1, pairs[0]), (2, pairs[1])]


def test_a_file_without_patch_sides_has_none(tmp_path):
    write_lines(tmp_path / "pairs.json", [PairText("a", " b")])
    assert read_lines(tmp_path / "pairs.json") == [(1, PairText("a", " b", None, None, ""))]


def test_blank_lines_and_further_fields_are_passed_over(file):
    assert read_lines(file(LINE | {"more": [1]}, b"", LINE)) == [(1, PairText("a", " b")), (3, PairText("a", " b"))]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "pairs.json"
    write_lines(path, [PAIR])

    def failing():
        yield PAIR
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_lines(path, failing())
    assert [one.name for one in tmp_path.iterdir()] == ["pairs.json"]
    assert read_lines(path) == [(1, PAIR)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"\xff\xfe", "line 2 is not JSON"),
        (b"[" * 50_000, "line 2 is not JSON"),
        ([LINE], "line 2 is a list"),
        ({"clean_prefix": "a"}, "line 2 has no clean_answer; it has: clean_prefix"),
        ({}, "line 2 has no clean_prefix and no clean_answer; it has: nothing"),
        (LINE | {"clean_answer": None}, "line 2 has no clean_answer"),
        (LINE | {"case": 3}, "line 2: case is 3, not text"),
        (LINE | {"patch_prefix": "c"}, "line 2 and the first line differ in whether they have patch_prefix"),
    ],
)
def test_a_malformed_line_is_named(file, bad, message):
    with pytest.raises(FileFormatError, match=f"pairs.json, {message}"):
        read_lines(file(LINE, bad))


def test_an_absurdly_long_line_is_refused_before_it_is_read(file):
    with pytest.raises(FileFormatError, match="line 1 is longer than 65536 bytes"):
        read_lines(file(LINE | {"clean_prefix": "a" * (1 << 16)}))


def test_a_file_of_absurdly_many_lines_is_refused(file, monkeypatch):
    monkeypatch.setattr(pair_lines, "MAX_LINES", 3)
    assert len(read_lines(file(LINE, LINE, LINE))) == 3
    with pytest.raises(FileFormatError, match="more than 3 lines"):
        read_lines(file(LINE, LINE, LINE, LINE))
