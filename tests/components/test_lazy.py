import pytest
import torch
from safetensors.torch import save_file

from whence.components.lazy import LazyRows, chunks, rows_of, whole
from whence.errors import FileFormatError

GENERATOR = torch.Generator().manual_seed(0)
FLAT, DEEP = torch.randn(9, 4, generator=GENERATOR), torch.randn(3, 9, 5, generator=GENERATOR)


@pytest.fixture
def file(tmp_path):
    tensors = {"flat": FLAT, "turned": FLAT.T.contiguous(), "deep": DEEP, "half": FLAT.half(), "wide": FLAT.double()}
    save_file(tensors, tmp_path / "tensors.safetensors")
    return tmp_path / "tensors.safetensors"


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("flat", (), (), FLAT),
        ("turned", (slice(None),), (), FLAT),
        ("deep", (2,), (), DEEP[2]),
        ("deep", (), (3,), DEEP[:, 3]),
        ("deep", (), (slice(2, None),), DEEP[:, 2:]),
        ("half", (), (), FLAT.half().float()),
        ("wide", (), (), FLAT.double()),
    ],
)
def test_rows_of_a_file_are_those_of_the_tensor(file, name, before, after, expected):
    own = LazyRows(file, name, before, after)
    index = torch.tensor([2, 0, 1, 2])
    assert own.shape == expected.shape
    assert own.dtype == expected.dtype
    assert torch.equal(own.rows(index), expected[index])
    assert torch.equal(whole(own), expected)
    assert torch.equal(torch.cat([part for _, part in chunks(own, 2)]), expected)


def test_only_the_asked_rows_are_read(file, monkeypatch):
    seen, read = [], LazyRows.read
    monkeypatch.setattr(LazyRows, "read", lambda own, start, stop: seen.append((start, stop)) or read(own, start, stop))
    rows_of(LazyRows(file, "flat"), torch.tensor([7, 2, 3, 7]))
    assert seen == [(2, 4), (7, 8)]


def test_a_scale_multiplies_each_row(file):
    scale = torch.arange(9.0)
    own = LazyRows(file, "turned", (slice(None),), scale=scale)
    assert torch.equal(whole(own), FLAT * scale[:, None])
    assert torch.equal(own.rows(torch.tensor([5])), 5 * FLAT[5:6])


def test_no_rows_are_an_empty_matrix(file):
    assert LazyRows(file, "flat").rows(torch.tensor([], dtype=torch.long)).shape == (0, 4)


@pytest.mark.parametrize("index", [[9], [-1]])
def test_a_row_that_is_not_there_is_refused(file, index):
    with pytest.raises(IndexError, match="rows 0 to 8"):
        LazyRows(file, "flat").rows(torch.tensor(index))


def test_a_tensor_or_file_that_is_not_there_is_refused(file, tmp_path):
    with pytest.raises(FileFormatError, match="no tensor 'other'"):
        _ = LazyRows(file, "other").shape
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        _ = LazyRows(tmp_path / "text.safetensors", "flat").shape
