import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import dataset_stores as small
from whence.errors import FileFormatError, WhenceError
from whence.results import manifest, store
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_folder import alone
from whence.results.dataset_layout import Packing
from whence.results.dataset_manifest import ranges
from whence.results.dataset_store import open_store
from whence.results.dataset_writer import write_store

EXTRA = [torch.bfloat16, torch.int8, torch.float64, torch.bool, torch.int32]


def _file(folder: Path, name: str) -> Path:
    (file,) = folder.glob(f"blocks-*/{name}.safetensors")
    return file


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_everything_comes_back_as_written(tmp_path: Path) -> None:
    windows = (0, 1, 2, 5)
    opened = open_store(small.store(tmp_path / "deep" / "run", windows))

    wanted, found = small.header(windows), opened.header
    for name in ("tokens", "windows", "pairs", "statistics", "only", "settings", "provenance"):
        assert getattr(found, name) == getattr(wanted, name)
    for side in ("targets", "sources"):
        assert list(getattr(found, side)) == list(getattr(wanted, side))
        for site, axis in getattr(wanted, side).items():
            other = getattr(found, side)[site]
            assert (other.site, other.size) == (site, axis.size)
            assert torch.equal(other.ids, axis.ids)
            assert all(torch.equal(other.quantities[name], number) for name, number in axis.quantities.items())
    for target, source, arrays in small.blocks(windows):
        for name, array in arrays.items():
            assert torch.equal(opened.block(target, source, name), array)
            assert torch.equal(opened.row(target, source, name, 1), array[1])
            assert torch.equal(opened.column(target, source, name, 0), array[:, 0])
            assert torch.equal(opened.totals(target, source, name), array.sum(1))
    assert opened.has("output", "embed")
    assert not opened.has("embed", "output")
    opened.verify()


@given(
    lines=some.tuples(some.integers(0, 4), some.integers(0, 4)),
    dtypes=some.lists(
        some.sampled_from([torch.bfloat16, torch.int8, torch.float64, torch.bool, torch.int32]), max_size=4
    ),
    narrow=some.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_shape_and_type_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    lines: tuple[int, int],
    dtypes: list[torch.dtype],
    narrow: bool,
) -> None:
    path, dtype = tmp_path_factory.mktemp("store") / "s", torch.float32 if narrow else torch.float64
    axes = [Axis(site, torch.arange(n), n) for site, n in zip(("output", "embed"), lines, strict=True)]
    header = Header(1, (), {"output": axes[0]}, {"embed": axes[1]}, {("output", "embed"): True}, ("attr",), {}, {}, {})
    block, extra = torch.randn(lines, dtype=dtype), {f"e{i}": torch.ones(3).to(of) for i, of in enumerate(dtypes)}

    opened = open_store(write_store(path, header, [("output", "embed", {"attr": block})], extra, dtype=dtype))

    opened.verify()
    assert torch.equal(opened.block("output", "embed", "attr"), block)
    assert all(torch.equal(opened.extra(name), tensor) for name, tensor in extra.items())
    assert opened.extra("absent") is None


def test_the_files_are_ordinary_safetensors(tmp_path: Path) -> None:
    folder = small.store(tmp_path / "run", (0, 1))

    read = safetensors.torch.load_file(_file(folder, "target-output"))

    assert read.keys() == {
        f"{source}/{name}" for source in small.SOURCES for name in small.header(()).of(("output", source))
    }
    assert torch.equal(read["0.moe.neuron:3/attr_abs"], small.blocks((0, 1))[1][2]["attr_abs"])
    assert safetensors.torch.load_file(_file(folder, "extra"))["unembedding"].shape == (3, 4)


def test_writing_into_a_block_changes_no_file(tmp_path: Path) -> None:
    folder = small.store(tmp_path / "run", (0,))
    opened = open_store(folder)

    opened.block("output", "embed", "attr").zero_()

    opened.verify()
    assert open_store(folder).block("output", "embed", "attr").any()


def test_progress_counts_the_blocks_that_were_verified(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    open_store(small.store(tmp_path / "run", (0,))).verify(lambda *said: seen.append(said))

    assert seen == [("verify", done, 6) for done in range(1, 7)]


def test_an_unknown_block_or_statistic_is_named(tmp_path: Path) -> None:
    opened = open_store(small.store(tmp_path / "run", (0,)))

    with pytest.raises(ValueError, match=r"has no block bias -> 1.mlp; 1.mlp has \[\]"):
        opened.block("1.mlp", "bias", "attr")
    with pytest.raises(ValueError, match=r"bias -> output has no 'attr_abs'; it has attr, attr.half"):
        opened.row("output", "bias", "attr_abs", 0)


def test_only_the_largest_columns_can_be_kept_with_their_totals(tmp_path: Path) -> None:
    pair, block = ("output", "embed"), torch.tensor([[1.0, -9.0, 4.0], [0.0, 2.0, 5.0]], dtype=torch.float64)
    axes = {site: Axis(site, torch.arange(n), n) for site, n in (("output", 2), ("embed", 3))}
    header = Header(1, (0,), {"output": axes["output"]}, {"embed": axes["embed"]}, {pair: True}, ("attr",), {}, {}, {})
    columns = torch.tensor([[1, 2], [1, 2]])
    arrays = {"columns": columns, "attr": block.gather(1, columns), "attr.total": block.sum(1)}

    opened = open_store(write_store(tmp_path / "s", header, [(*pair, arrays)], top={pair: 2}))

    opened.verify()
    assert opened.top(*pair) == 2
    assert opened.row(*pair, "attr", 0).tolist() == [0.0, -9.0, 4.0]
    assert opened.totals(*pair, "attr").tolist() == [-4.0, 7.0]
    for ask in (lambda: opened.block(*pair, "attr"), lambda: opened.column(*pair, "attr", 0)):
        with pytest.raises(ValueError, match="only the largest columns of each row were kept"):
            ask()


@pytest.mark.parametrize("name", ["target-output", "target-0.attn.q", "axes", "extra"])
def test_missing_short_and_long_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    file = _file(small.store(tmp_path / "run", (0,)), name)
    content = file.read_bytes()

    for damaged in (content[:-1], content + b"x", b""):
        file.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=f"{name}.safetensors has {len(damaged)} bytes, and must have"):
            open_store(tmp_path / "run")
    file.unlink()
    with pytest.raises(FileFormatError, match=rf"{name}.safetensors is missing"):
        open_store(tmp_path / "run")


@pytest.mark.parametrize("name", ["target-output", "target-0.attn.q", "axes", "extra"])
@pytest.mark.parametrize("place", [20, -1])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str, place: int) -> None:
    folder = small.store(tmp_path / "run", (0,))
    _flip(_file(folder, name), place)

    with pytest.raises(FileFormatError, match=rf"{name}.safetensors is damaged"):
        open_store(folder).verify()


def test_a_flipped_bit_in_a_block_is_named_with_its_block(tmp_path: Path) -> None:
    folder = small.store(tmp_path / "run", (0,))
    _flip(_file(folder, "target-output"), -1)

    with pytest.raises(FileFormatError, match=r"attr.half of bias -> output is not what was written"):
        open_store(folder).verify()


def test_a_damaged_description_and_other_results_are_refused(tmp_path: Path) -> None:
    folder = small.store(tmp_path / "run", (0,))
    (folder / "result.json").write_text((folder / "result.json").read_text().replace('"tokens": 10', '"tokens": 11'))
    other = store.write(tmp_path / "scores", "scores", {}, {"values": torch.zeros(1)})

    with pytest.raises(FileFormatError, match="digest does not match"):
        open_store(folder)
    with pytest.raises(FileFormatError, match="kind 'scores', and 'dataset_attributions'"):
        open_store(other)
    with pytest.raises(FileFormatError, match=r"has no result.json"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(generation="../elsewhere"),
        lambda meta: meta["targets"][0].update(lines=-1),
        lambda meta: meta["targets"][0].update(site="../../x"),
        lambda meta: meta["pairs"][0].update(digests="00"),
        lambda meta: meta["pairs"][0].update(source="nowhere"),
        lambda meta: meta.pop("pairs"),
        lambda meta: meta.update(dtype="object"),
    ],
)
def test_a_forged_description_is_refused(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> None:
    folder = small.store(tmp_path / "run", (0,))
    said = json.loads((folder / "result.json").read_text())
    change(said["meta"])
    (folder / "result.json").write_text(manifest.to_text(said["kind"], said["meta"], said["files"]))

    with pytest.raises(FileFormatError, match=r"makes no sense"):
        open_store(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda given: given[:-1], "1 blocks of the header were not given: bias -> 0.attn.q"),
        (lambda given: [*given, given[0]], "embed -> output was given twice"),
        (lambda given: [("output", "pos_embed", {}), *given], "pos_embed -> output is not a pair"),
        (lambda given: [(*given[0][:2], {"attr": torch.zeros(3, 7).double()})], "has the arrays"),
        (lambda given: [(*given[0][:2], {n: b.float() for n, b in given[0][2].items()})], "must be torch.float64"),
        (lambda given: [(*given[0][:2], {n: b.T for n, b in given[0][2].items()})], r"\(7, 3\), and must be"),
    ],
)
def test_blocks_that_are_not_those_of_the_header_leave_the_old_store(
    tmp_path: Path, change: Callable[[list[object]], list[object]], complaint: str
) -> None:
    folder = small.store(tmp_path / "run", (0, 1))

    with pytest.raises(ValueError, match=complaint):
        write_store(folder, small.header((5,)), change(small.blocks((5,))))

    assert len([*folder.glob("blocks-*")]) == 1
    opened = open_store(folder)
    opened.verify()
    assert opened.header.windows == (0, 1)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [(torch.tensor([2, 1, 3]), "ascending"), (torch.tensor([0, 1, 2], dtype=torch.int32), "int64")],
)
def test_axes_are_checked(tmp_path: Path, ids: torch.Tensor, complaint: str) -> None:
    axis = Axis("output", ids, 4)
    header = Header(1, (0,), {"output": axis}, {}, {}, ("attr",), {}, {}, {})

    with pytest.raises(ValueError, match=complaint):
        write_store(tmp_path / "s", header, [])


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(FileFormatError, match=r"holds thesis.tex"):
        small.store(tmp_path, (0,))

    assert (tmp_path / "thesis.tex").exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = small.store(tmp_path / "run", (0,))

    with alone(folder), pytest.raises(WhenceError, match="another process is writing"):
        small.store(folder, (1,))

    assert open_store(small.store(folder, (1,))).header.windows == (1,)


def test_a_store_that_is_replaced_stays_what_it_was_for_who_has_it_open(tmp_path: Path) -> None:
    opened = open_store(small.store(tmp_path / "run", (0,)))
    small.store(tmp_path / "run", (1,))

    assert torch.equal(opened.block("output", "embed", "attr"), small.blocks((0,))[0][2]["attr"])
    assert torch.equal(opened.header.targets["output"].ids, small.header(()).targets["output"].ids)
    with pytest.raises(FileFormatError, match="replaced since it was opened"):
        opened.verify()


@given(some.sets(some.integers(0, 30)))
def test_ranges_are_the_numbers(numbers: set[int]) -> None:
    runs = ranges(sorted(numbers))

    assert [number for first, last in runs for number in range(first, last + 1)] == sorted(numbers)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(runs))


def test_a_packing_says_what_safetensors_says(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0).double(), "b": torch.zeros(0, 2).double(), "c": torch.ones(2, 2).double()}
    packing = Packing((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items())
    content = packing.head + b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    (tmp_path / "f").write_bytes(content)

    read = safetensors.torch.load_file(tmp_path / "f")

    assert packing.size == len(content)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
