import json
import os
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch

from whence.errors import FileFormatError
from whence.results import manifest, store

DATA = Path(__file__).parent / "data"
META = {"method": "direct", "tokens": ["a", "\u202e<b>"], "nested": {"n": 1, "x": 0.1, "none": None}}


def _write(path: Path, value: float = 1.0) -> Path:
    return store.write(path, "scores", META, {"values": torch.full((3, 2), value)})


def _tensor_file(path: Path) -> Path:
    (file,) = path.glob("*.safetensors")
    return file


def _forge(path: Path, **changes: object) -> None:
    """Change the manifest as its writer could have: with a matching digest."""
    content = json.loads((path / "result.json").read_text()) | changes
    content.pop("digest")
    (path / "result.json").write_text(json.dumps(content | {"digest": manifest._digest(content)}))


def test_a_result_comes_back_as_written(tmp_path: Path) -> None:
    tensors = {
        "values": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        "ids": torch.arange(5),
        "half": torch.tensor([0.5, -0.0, float("inf")], dtype=torch.bfloat16),
        "scalar": torch.tensor(2.0, dtype=torch.float64),
    }

    record = store.read(store.write(tmp_path / "deep" / "run", "scores", META, tensors), "scores")

    assert (record.kind, record.version, record.meta) == ("scores", manifest.VERSION, META)
    assert record.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert record.tensors[name].dtype == tensor.dtype
        assert torch.equal(record.tensors[name], tensor)


def test_views_transposes_and_shared_storage_are_stored(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "again": base, "row": base[1], "turned": base.T, "spread": torch.ones(1).expand(3)}

    read = store.read(store.write(tmp_path / "run", "dictionary", {}, tensors)).tensors

    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert _tensor_file(tmp_path / "run").stat().st_size < 1000


def test_nothing_but_the_result_is_left_behind_and_anyone_may_read_it(tmp_path: Path) -> None:
    _write(tmp_path / "run")

    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "run").iterdir()} == {0o644}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


def test_writing_again_replaces_the_old_result_whole(tmp_path: Path) -> None:
    _write(tmp_path / "run", 1.0)
    _write(tmp_path / "run", 2.0)

    assert torch.equal(store.read(tmp_path / "run").tensors["values"], torch.full((3, 2), 2.0))
    assert len(list((tmp_path / "run").iterdir())) == 2


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_interrupted_replacement_leaves_the_old_result_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    _write(tmp_path / "run", 1.0)
    calls, real = [], {"replace": os.replace, "fsync": os.fsync, "save": safetensors.torch.save_file}

    def stop_at(name: str, number: int):
        def call(*args):
            calls.append(name)
            if calls.count(name) == number:
                raise KeyboardInterrupt
            return real[name](*args)

        return call

    monkeypatch.setattr(os, "replace", stop_at("replace", {1: 1, 2: 2}.get(step, 9)))
    monkeypatch.setattr(safetensors.torch, "save_file", stop_at("save", {3: 1}.get(step, 9)))
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "run", 2.0)
    monkeypatch.undo()

    assert torch.equal(store.read(tmp_path / "run").tensors["values"], torch.full((3, 2), 1.0))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    _write(tmp_path / "run", 3.0)
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_an_interrupted_first_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")

    with pytest.raises(FileFormatError, match="not a whence result, so it is left alone"):
        _write(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"format": "other"}'])
def test_a_folder_with_someone_elses_result_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)

    with pytest.raises(FileFormatError, match="not a whence result"):
        _write(tmp_path)
    with pytest.raises(FileFormatError, match=r"not written by whence|damaged"):
        store.read(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(FileFormatError, match="not a whence result"):
        _write(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    assert store.read(_write(tmp_path / "run")).kind == "scores"


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nowhere is not a whence result: it has no result\.json"):
        store.read(tmp_path / "nowhere")


def test_truncated_tensors_are_refused(tmp_path: Path) -> None:
    file = _tensor_file(_write(tmp_path / "run"))
    file.write_bytes(file.read_bytes()[:-4])

    with pytest.raises(FileFormatError, match=r"damaged: its sha256 is [0-9a-f]{64}, not [0-9a-f]{64}"):
        store.read(tmp_path / "run")


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    _tensor_file(_write(tmp_path / "run")).unlink()

    with pytest.raises(FileFormatError, match="is missing"):
        store.read(tmp_path / "run")


def test_every_flipped_byte_of_the_tensors_is_noticed(tmp_path: Path) -> None:
    file = _tensor_file(_write(tmp_path / "run"))
    whole = file.read_bytes()

    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FileFormatError, match="damaged"):
            store.read(tmp_path / "run")


def test_a_changed_byte_of_the_description_is_noticed_unless_it_changes_nothing(tmp_path: Path) -> None:
    file = _write(tmp_path / "run") / "result.json"
    whole = file.read_bytes()

    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            record = store.read(tmp_path / "run")
        except FileFormatError:
            continue
        assert record.meta == META  # only white space was touched
        assert whole[place : place + 1].isspace()


def test_a_newer_version_says_to_upgrade(tmp_path: Path) -> None:
    _forge(_write(tmp_path / "run"), version=3)

    with pytest.raises(FileFormatError, match=r"version 3; .* reads up to 2\. Upgrade it: pip install -U whence"):
        store.read(tmp_path / "run")


@pytest.mark.parametrize("version", ["1", None, 1.0])
def test_a_version_that_is_no_number_is_refused(tmp_path: Path, version: object) -> None:
    _forge(_write(tmp_path / "run"), version=version)

    with pytest.raises(FileFormatError, match="format version"):
        store.read(tmp_path / "run")


def test_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    store.write(tmp_path / "run", "dictionary", {}, {})

    with pytest.raises(FileFormatError, match="kind 'dictionary', and 'scores' is wanted"):
        store.read(tmp_path / "run", "scores")


@pytest.mark.parametrize("files", [{}, {"../secret": "0" * 64}, {"a": "0", "b": "1"}, [], {"tensors": 3}])
def test_a_manifest_that_names_other_files_is_refused(tmp_path: Path, files: object) -> None:
    _forge(_write(tmp_path / "run"), files=files)

    with pytest.raises(FileFormatError, match=r"not a name whence gives|lacks its kind"):
        store.read(tmp_path / "run")


def test_a_tensor_file_of_another_format_is_refused(tmp_path: Path) -> None:
    _tensor_file(_write(tmp_path / "run")).unlink()
    (tmp_path / "draft").write_bytes(b"PK\x03\x04 something else")
    digest = store._sha256(tmp_path / "draft")
    (tmp_path / "draft").rename(tmp_path / "run" / store._file_name("tensors", digest))
    _forge(tmp_path / "run", files={store._file_name("tensors", digest): digest})

    with pytest.raises(FileFormatError, match="is not a safetensors file"):
        store.read(tmp_path / "run")


def test_an_oversized_description_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "run")
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)

    with pytest.raises(FileFormatError, match="whence reads at most 10"):
        store.read(tmp_path / "run")


def test_a_description_nested_without_end_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("[" * 100_000)

    with pytest.raises(FileFormatError, match="damaged"):
        store.read(tmp_path / "run")


def test_a_description_json_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        store.write(tmp_path / "run", "scores", {"gap": float("nan")}, {})

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_version_1_stays_readable() -> None:
    record = store.read(DATA / "record-v1", "scores")

    assert record.version == 1
    assert record.meta == {"method": "direct", "tokens": ["The", " capital"]}
    assert torch.equal(record.tensors["values"], torch.tensor([[1.5, -2.0], [0.25, 0.0]]))


def test_an_older_version_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "VERSION", 3)
    monkeypatch.setitem(manifest.MIGRATIONS, 1, lambda old: old | {"meta": {"way": old["meta"]["method"]}})
    monkeypatch.setitem(manifest.MIGRATIONS, 2, lambda old: old | {"kind": old["kind"].upper()})

    record = store.read(DATA / "record-v1")

    assert (record.kind, record.version, record.meta) == ("SCORES", 1, {"way": "direct"})


def test_a_version_without_a_way_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MIGRATIONS", {})

    with pytest.raises(FileFormatError, match="version 1, which this whence no longer reads"):
        store.read(DATA / "record-v1")


def test_large_tensors_are_checked_when_they_are_first_asked_for(tmp_path: Path) -> None:
    path = store.write(tmp_path / "run", "graph", {}, {"few": torch.ones(1)}, {"many": torch.arange(9)})
    (file,) = path.glob("large-*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\x01")

    record = store.read(path, "graph")

    assert record.tensors["few"].tolist() == [1.0]
    with pytest.raises(FileFormatError, match="damaged"):
        _ = record.large.tensors
    file.write_bytes(whole)
    assert torch.equal(record.large.tensors["many"], torch.arange(9))


def test_a_result_without_large_tensors_has_none(tmp_path: Path) -> None:
    assert store.read(_write(tmp_path / "run")).large.tensors == {}


def test_replacing_a_result_drops_its_large_tensors(tmp_path: Path) -> None:
    store.write(tmp_path / "run", "graph", {}, {}, {"many": torch.arange(9)})
    _write(tmp_path / "run")

    assert len(list((tmp_path / "run").iterdir())) == 2
    assert store.read(tmp_path / "run").kind == "scores"
