"""Budgets in words, and rows in a file that are the same rows."""

from pathlib import Path

import pytest
import torch

from whence.engine.memory import RowStore, bytes_of, said


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("512MiB", 2**29), ("1.5 kb", 1500), (" 3 tib ", 3 * 2**40), ("77", 77), (77, 77), ("9B", 9)],
)
def test_a_budget_is_read_in_either_unit(text: str | int, size: int) -> None:
    assert bytes_of(text) == size


def test_no_budget_is_no_limit() -> None:
    assert bytes_of(None) is None


@pytest.mark.parametrize("text", ["much", "", "-1GB", "0", 0, -5, "1.2.3GB", "8XB", "GB"])
def test_what_is_no_budget_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="positive number of bytes"):
        bytes_of(text)


def test_a_size_is_said_in_the_largest_unit_that_fits() -> None:
    assert [said(size) for size in (12, 1500, 2_500_000, 10**9, 3 * 10**12)] == [
        "12 B",
        "1.50 KB",
        "2.50 MB",
        "1.00 GB",
        "3.00 TB",
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_beyond_the_limit_lie_in_a_file_and_are_bit_equal(dtype: torch.dtype, tmp_path: Path) -> None:
    rows = [torch.randn(3, 5, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    store = RowStore(2 * rows[0].nbytes, tmp_path)
    kept = [store.kept(row) for row in rows]
    assert (store.used, store.spilled) == (2 * rows[0].nbytes, 2 * rows[0].nbytes)
    assert kept[0] is rows[0]
    assert kept[2].data_ptr() != rows[2].data_ptr()
    assert all(torch.equal(one, row) and one.dtype == dtype for one, row in zip(kept, rows, strict=True))


def test_the_file_is_gone_by_name_at_once_and_its_rows_stay(tmp_path: Path) -> None:
    store = RowStore(0, tmp_path)
    kept = store.kept(torch.arange(6.0).view(2, 3))
    del store
    assert list(tmp_path.iterdir()) == []
    assert kept.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_goes_to_a_file_without_a_limit_and_empty_rows_never_do(tmp_path: Path) -> None:
    rows = torch.ones(2, 2)
    assert RowStore().kept(rows) is rows
    empty = torch.zeros(0, 4)
    assert RowStore(0, tmp_path).kept(empty) is empty
