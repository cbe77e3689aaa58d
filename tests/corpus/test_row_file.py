import io

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from whence.corpus.cutting import Block
from whence.corpus.row_file import Reader, Writer
from whence.errors import FileFormatError

BLOCKS = [
    Block(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2])),
    Block(torch.tensor([[6, 0, 0]]), torch.tensor([1])),
]


def written(blocks, order):
    stream = io.BytesIO()
    writer = Writer(stream)
    for block in blocks:
        writer.add(block)
    return stream.getvalue() if order is None else (writer.finish(order), stream.getvalue())


def test_the_file_is_safetensors_with_tokens_lengths_order_and_the_tokens_that_occur():
    _, content = written(BLOCKS, [2, 0, 1])
    found = {name: tensor.tolist() for name, tensor in load(content).items()}
    assert found == {
        "tokens": [[5, 6, 7], [8, 9, 0], [6, 0, 0]],
        "lengths": [3, 2, 1],
        "order": [2, 0, 1],
        "seen": [5, 6, 7, 8, 9],  # the zeros are padding
    }


def test_any_part_reads_as_the_whole_file_has_it(tmp_path):
    layout, content = written(BLOCKS, [2, 0, 1])
    file = tmp_path / "rows.safetensors"
    file.write_bytes(content)
    whole, reader = load_file(file), Reader(file, layout)
    for name, tensor in whole.items():
        flat = tensor.flatten().tolist()
        for start in range(len(flat)):
            for stop in range(start + 1, len(flat) + 1):
                assert reader.numbers(name, start, stop).tolist() == flat[start:stop]


def test_the_file_does_not_depend_on_how_the_rows_came():
    ids, lengths = torch.randint(0, 50, (9, 4)), torch.randint(1, 5, (9,))
    ids = ids.where(torch.arange(4) < lengths[:, None], 0)
    expected = written([Block(ids, lengths)], range(9))
    for sizes in ([1] * 9, [4, 5], [8, 1]):
        parts = zip(ids.split(sizes), lengths.split(sizes), strict=True)
        assert written([Block(*part) for part in parts], range(9)) == expected


def test_a_file_without_its_end_or_with_another_header_is_refused(tmp_path):
    layout, content = written(BLOCKS, [0, 1, 2])
    file = tmp_path / "rows.safetensors"
    for damaged, message in (
        (content[:-1], f"has {len(content) - 1} bytes, not {len(content)}: it is incomplete"),
        (content[:9] + b"?" + content[10:], "its header is not that of"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=message):
            Reader(file, layout)
    with pytest.raises(FileFormatError, match="has 0 bytes"):
        Reader(tmp_path / "none", layout)


def test_a_file_that_was_not_finished_is_no_safetensors_file():
    with pytest.raises(SafetensorError):
        load(written(BLOCKS, None))
