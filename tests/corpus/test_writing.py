import hashlib

import pytest
import torch

from whence.corpus.cutting import Block, Tally
from whence.corpus.token_rows import TokenRows
from whence.corpus.writing import order, write


def test_an_order_has_every_row_once_and_is_the_one_of_its_seed_for_ever():
    assert order(8, 0) == [7, 5, 2, 4, 6, 1, 0, 3]
    assert order(5, 1) == [2, 0, 4, 1, 3]
    assert sorted(order(1000, 3)) == list(range(1000))
    assert order(4, None) == [0, 1, 2, 3]


def test_more_rows_keep_the_order_of_those_before():
    assert [row for row in order(100, 5) if row < 40] == order(40, 5)


def test_the_fingerprint_is_the_sha256_of_the_file(tmp_path):
    rows = write(tmp_path / "rows", [Block(torch.tensor([[3, 4]]), torch.tensor([2]))], {"seed": None}, Tally())
    [file] = rows.path.glob("*.safetensors")
    assert rows.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_failure_half_way_leaves_nothing(tmp_path):
    def failing():
        yield Block(torch.tensor([[3, 4]]), torch.tensor([2]))
        assert list(tmp_path.iterdir()) != []
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write(tmp_path / "rows", failing(), {"seed": 0}, Tally())
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_not_there_before_it_is_whole(tmp_path):
    def watching():
        yield Block(torch.tensor([[3, 4]]), torch.tensor([2]))
        assert not (tmp_path / "rows").exists()

    write(tmp_path / "rows", watching(), {"seed": 0}, Tally())
    TokenRows.open(tmp_path / "rows").verify()
