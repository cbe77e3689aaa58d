import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from whence.corpus import arrays, files
from whence.corpus.documents import documents
from whence.errors import FileFormatError


def contents(data, **named):
    return [one.content if isinstance(one.content, str) else one.content.tolist() for one in documents(data, **named)]


def test_each_line_of_a_text_file_that_is_not_blank_is_a_document_named_by_its_number(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffOne é.\r\n\n  \nTwo: \u2028 same line.\nNo end".encode())
    assert contents(file) == ["One é.", "Two: \u2028 same line.", "No end"]
    assert [one.name for one in documents(str(file))] == [f"{file}, line {n}" for n in (1, 4, 5)]


def test_a_field_of_json_lines_holds_text_or_token_ids(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"story": "One\\ntwo.", "n": 1}\n{"story": [3, 4]}\n{"story": " "}\n')
    assert contents(file, text_field="story") == ["One\ntwo.", [3, 4], []]


def test_a_folder_is_its_files_in_the_order_of_their_paths_without_hidden_and_unknown_ones(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("c.txt", "b/z.txt", "a.txt", "README.md", ".hidden.txt", ".cache/x.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "b/a.jsonl").write_text(json.dumps({"text": "b/a"}))
    assert contents(tmp_path) == ["a.txt", "b/a", "b/z.txt", "c.txt"]


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_the_rows_of_an_array_file_are_documents(tmp_path, dtype, suffix):
    values = np.arange(12, dtype=dtype).reshape(3, 4)
    file = tmp_path / f"a{suffix}"
    np.save(file, values) if suffix == ".npy" else save_file({"tokens": torch.from_numpy(values)}, file)
    assert contents(file) == contents(values) == contents(torch.from_numpy(values)) == values.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_flat_array_is_one_document_in_pieces(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(arrays, "PIECE", 5)
    file = tmp_path / f"a{suffix}"
    ids = torch.arange(12)
    np.save(file, ids.numpy()) if suffix == ".npy" else save_file({"ids": ids}, file)
    found = list(documents(file))
    assert torch.cat([one.content for one in found]).tolist() == ids.tolist()
    assert [one.continues for one in found] == [False, True, True]


def test_an_iterable_mixes_texts_records_ids_and_files(tmp_path):
    (tmp_path / "a.txt").write_text("One.\nTwo.")
    items = ["Zero.", tmp_path / "a.txt", {"text": "Three."}, [4, 5], np.array([6]), torch.tensor([7]), {"text": (8,)}]
    assert contents(iter(items)) == ["Zero.", "One.", "Two.", "Three.", [4, 5], [6], [7], [8]]


def test_a_stream_is_read_as_it_is_taken():
    def endless():
        while True:
            taken.append(1)
            yield "One."

    taken = []
    found = documents(endless())
    assert [next(found).content for _ in range(3)] == ["One."] * 3
    assert len(taken) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"One.\nTw\xffo.", r"a\.txt, line 2 is not UTF-8 \(byte 0xff at 2\)"),
        ("a.txt", b"One.\n" + b"x" * 99, r"a\.txt, line 2 is longer than 64 bytes"),
        ("a.jsonl", b'{"text": "One."}\n\n{"text"', r"a\.jsonl, line 3 is not JSON"),
        ("a.jsonl", b'["One."]', r"a\.jsonl, line 1 is a list; each line is one object"),
        ("a.npy", b"\x93NUMPY\x01\x00broken", r"a\.npy is not an array file"),
        ("a.npy", b"", r"a\.npy is not an array file"),
        ("a.safetensors", b"broken file", r"a\.safetensors is not a safetensors file"),
        ("a.csv", b"1,2", r"a\.csv ends in '\.csv'; data are read from \.txt, \.jsonl, \.npy, \.safetensors"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 64)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        list(documents(tmp_path / name))


def test_an_array_of_objects_is_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match="not an array file"):
        list(documents(tmp_path / "a.npy"))


def test_missing_paths_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="there is no such file"):
        list(documents("no/such.txt"))
    with pytest.raises(FileFormatError, match="holds no file of these kinds"):
        list(documents(tmp_path))


def test_a_safetensors_file_with_several_tensors_says_which_are_the_tokens(tmp_path):
    file, ids = tmp_path / "a.safetensors", torch.tensor([[1, 2]])
    save_file({"input_ids": ids, "mask": ids + 5}, file)
    assert contents(file) == [[1, 2]]
    save_file({"these": ids, "those": ids + 5}, file)
    with pytest.raises(FileFormatError, match="holds these, those; call the tokens 'tokens'"):
        list(documents(file))


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (3, TypeError, "data is a int; it is a path"),
        ({"train": [], "test": []}, TypeError, r"data is a dict of train, test \(choose one\)"),
        ([["a"]], TypeError, "the data, item 0 is a list; a document is text, or one list of token ids"),
        ([3], TypeError, "the data, item 0 is a int"),
        ([[True]], TypeError, "item 0 is a list"),
        (["a", {"story": "b"}], ValueError, "the data, item 1 has no field 'text'; it has: story"),
        (torch.ones(2, 2), ValueError, "the array holds torch.float32; token ids are whole numbers"),
        ([torch.tensor([True])], ValueError, "item 0 holds torch.bool"),
        (torch.ones(1, 1, 1, dtype=torch.long), ValueError, r"has shape \[1, 1, 1\]"),
    ],
)
def test_other_data_are_refused(data, kind, message):
    with pytest.raises(kind, match=message):
        list(documents(data))


def test_a_list_of_file_names_is_not_taken_for_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("One.")
    assert contents(["This is a.txt"]) == ["This is a.txt"]
    with pytest.raises(ValueError, match=r"item 0 is 'a\.txt', which is a file; give pathlib\.Path"):
        list(documents(["a.txt"]))
