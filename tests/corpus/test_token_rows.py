import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from whence.corpus.prepare import prepare
from whence.corpus.token_rows import TokenRows
from whence.errors import FileFormatError
from whence.results import manifest, store

RAGGED = [list(range(3, 3 + n)) for n in (4, 1, 6, 2, 5, 3, 1)]


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    return prepare(RAGGED, None, tmp_path_factory.mktemp("ragged") / "rows", sequence_length=6, pack=False, seed=0)


def listed(batch):
    return [row[:length] for row, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True)]


def test_rows_are_numbered_as_the_data_came(ragged):
    assert [ragged.row(number).tolist() for number in range(ragged.rows)] == RAGGED
    with pytest.raises(IndexError, match="row 7 is outside 0 to 6"):
        ragged.row(7)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_the_batches_of_any_size_are_the_rows_in_one_order_each_once(ragged, size):
    batches = [ragged.batch(number, size) for number in range(ragged.batches(size))]
    numbers = torch.cat([batch.numbers for batch in batches]).tolist()
    assert numbers == ragged.batch(0, ragged.rows).numbers.tolist()
    assert sorted(numbers) == list(range(7)) != numbers
    assert [row for batch in batches for row in listed(batch)] == [RAGGED[number] for number in numbers]


def test_a_batch_is_as_wide_as_its_longest_row_and_padded_with_zeros(ragged):
    for number in range(ragged.batches(2)):
        ids, lengths, _ = ragged.batch(number, 2)
        assert ids.shape[1] == lengths.max()
        assert not ids[torch.arange(ids.shape[1]) >= lengths[:, None]].any()
        assert ids.dtype == torch.long


def test_sizes_and_tokens_are_counted_without_the_padding(ragged):
    assert (ragged.rows, ragged.sequence_length, ragged.tokens) == (7, 6, sum(map(len, RAGGED)))
    assert ragged.seen.tolist() == sorted({id for row in RAGGED for id in row})
    assert "7 rows of 6, 22 tokens" in repr(ragged)


@pytest.mark.parametrize(("number", "size", "kind"), [(-1, 2, IndexError), (4, 2, IndexError), (0, 0, ValueError)])
def test_a_batch_that_is_not_there_is_refused(ragged, number, size, kind):
    with pytest.raises(kind, match=r"outside 0 to 3: 7 rows in batches of 2|batch_size is 0"):
        ragged.batch(number, size)


class Counting(io.FileIO):
    read_bytes = 0

    def read(self, size=-1):
        Counting.read_bytes += size
        assert size >= 0
        return super().read(size)


def test_opening_and_a_batch_read_their_own_rows_and_nothing_else(tmp_path, monkeypatch):
    rows = prepare(torch.randint(0, 99, (500, 64)), None, tmp_path / "rows", sequence_length=64)
    usual = Path.open
    spied = lambda file, mode, buffering=-1: usual(file, mode) if buffering else Counting(file)  # noqa: E731
    monkeypatch.setattr(Path, "open", spied)
    monkeypatch.setattr(Counting, "read_bytes", 0)
    again = TokenRows.open(rows.path)
    assert Counting.read_bytes == 512  # the header, beside the description
    again.batch(7, 8)
    assert Counting.read_bytes == 512 + 8 * (64 + 1 + 1) * 4  # tokens, length, place in the order


def test_opened_again_everything_is_the_same(ragged):
    again = TokenRows.open(str(ragged.path))
    again.verify()
    assert (again.fingerprint, again.about) == (ragged.fingerprint, ragged.about)
    assert all(torch.equal(*pair) for pair in zip(again.batch(1, 3), ragged.batch(1, 3), strict=True))


def test_a_changed_token_is_found_by_verify(ragged, tmp_path):
    copy = shutil.copytree(ragged.path, tmp_path / "copy")
    file = copy / f"tensors-{ragged.fingerprint[:16]}.safetensors"
    content = bytearray(file.read_bytes())
    content[516] ^= 1
    file.write_bytes(content)
    rows = TokenRows.open(copy)
    with pytest.raises(FileFormatError, match="is damaged: its sha256"):
        rows.verify()
    file.unlink()
    with pytest.raises(FileFormatError, match="has 0 bytes"):
        TokenRows.open(copy)


def test_folders_of_something_else_are_refused(ragged, tmp_path):
    with pytest.raises(FileFormatError, match="is not a whence result"):
        TokenRows.open(tmp_path)
    store.write(tmp_path / "scores", "scores", {}, {"values": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="of kind 'scores', and 'token_rows' is wanted"):
        TokenRows.open(tmp_path / "scores")


@pytest.mark.parametrize(
    ("meta", "files", "message"),
    [
        ({}, {}, "does not describe rows of tokens"),
        ({"sizes": {"rows": "x"}, "about": {}}, {"a": "b"}, "does not describe rows of tokens"),
        (None, {"../../etc/passwd": "b"}, "names a file '../../etc/passwd', which is not a name whence gives"),
    ],
)
def test_a_description_that_was_tampered_with_is_refused(ragged, tmp_path, meta, files, message):
    said = json.loads((ragged.path / manifest.NAME).read_text())
    text = manifest.to_text("token_rows", said["meta"] if meta is None else meta, files)
    (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        TokenRows.open(tmp_path)
