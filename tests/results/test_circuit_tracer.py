import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from layered_graphs import layered
from whence.errors import FileFormatError
from whence.results.graph import Graph
from whence.results.torch_zip import read_zip

CONFIG = """
import torch
from dataclasses import dataclass

@dataclass
class UnifiedConfig:
    model_name: str = "a/model"
    d_vocab: int = 50
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
"""
FIELDS = "    token_str: str\n    vocab_idx: int\n"
TARGETS = {
    "tuple": f"from typing import NamedTuple\nclass LogitTarget(NamedTuple):\n{FIELDS}",
    "dataclass": f"from dataclasses import dataclass\n@dataclass\nclass LogitTarget:\n{FIELDS}",
    "slots": f"from dataclasses import dataclass\n@dataclass(frozen=True, slots=True)\nclass LogitTarget:\n{FIELDS}",
}
MODULES = ("circuit_tracer", "circuit_tracer.graph", "circuit_tracer.attribution")


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Saves a graph with classes of the peer's names, which are gone when the file is read."""

    def save(kind: str = "tuple", **changes: Any) -> Path:
        modules = {name: ModuleType(name) for name in MODULES}
        with pytest.MonkeyPatch.context() as patch:
            for name, module in modules.items():
                patch.setitem(sys.modules, name, module)
            exec(CONFIG, vars(modules["circuit_tracer.graph"]))
            exec(TARGETS[kind], vars(modules["circuit_tracer.attribution"]))
            target = vars(modules["circuit_tracer.attribution"])["LogitTarget"]
            content = _content([target(" word10", 10), target(" word11", 11)]) | changes
            content |= {"cfg": vars(modules["circuit_tracer.graph"])["UnifiedConfig"]()}
            kept = {name: value for name, value in content.items() if value is not None}
            torch.save(kept, tmp_path / "graph.pt")  # noqa: TID251  # the files that the reader is for
        return tmp_path / "graph.pt"

    return save


def _content(targets: Any) -> dict[str, Any]:
    graph = layered(0, parity=True, dtype=torch.float32)
    return {
        "input_string": graph.prompt,
        "adjacency_matrix": graph.dense(),
        "active_features": graph.active_features,
        "selected_features": graph.selected_features,
        "activation_values": graph.activation_values,
        "logit_targets": targets,
        "logit_probabilities": graph.logit_probabilities,
        "vocab_size": 50,
        "input_tokens": graph.input_tokens,
        "scan": "a/scan",
    }


@pytest.mark.parametrize("kind", TARGETS)
def test_a_saved_graph_is_read_whole(save: Callable[..., Path], kind: str) -> None:
    graph = layered(0, parity=True, dtype=torch.float32)

    read = Graph.from_circuit_tracer(save(kind))

    assert [*read.nodes] == [*graph.nodes]
    assert torch.equal(read.dense(), graph.dense())
    assert read.logit_targets == graph.logit_targets
    assert (read.vocab_size, read.prompt) == (50, graph.prompt)
    for name in ("active_features", "activation_values", "selected_features", "input_tokens", "logit_probabilities"):
        assert torch.equal(getattr(read, name), getattr(graph, name)), name
    assert (read.provenance["model"], read.provenance["scan"]) == ("a/model", "a/scan")
    assert read.replacement_score() == pytest.approx(graph.replacement_score(), rel=1e-6)
    assert read.completeness_score() == pytest.approx(graph.completeness_score(), rel=1e-6)


class Tokenizer:
    def decode(self, ids: list[int]) -> str:
        return "|".join(f"t{i}" for i in ids)


@pytest.mark.parametrize("name", ["logit_targets", "logit_tokens"])
def test_an_old_file_keeps_its_ids_and_gets_texts_from_a_tokenizer(save: Callable[..., Path], name: str) -> None:
    file = save(**({"logit_targets": None, "vocab_size": None} | {name: torch.tensor([10, 11])}))

    bare, named = Graph.from_circuit_tracer(file), Graph.from_circuit_tracer(file, Tokenizer())

    assert [(target.token_str, target.vocab_idx) for target in bare.logit_targets] == [("", 10), ("", 11)]
    assert [(target.token_str, target.vocab_idx) for target in named.logit_targets] == [("t10", 10), ("t11", 11)]
    assert (bare.vocab_size, bare.token_texts[1], named.token_texts[1]) == (50, "1", "t1")


def _zip(path: Path, program: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


class _Calls:
    """Pickled, it calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *values: Any) -> None:
        self._reduced = (function, values)

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize(
    ("function", "named"), [("os.system", "system"), ("builtins.eval", "eval"), ("builtins.getattr", "getattr")]
)
def test_a_file_that_asks_for_a_call_is_refused_before_it_happens(tmp_path: Path, function: str, named: str) -> None:
    module, _, name = function.partition(".")
    witness = tmp_path / "ran"
    called = getattr(__import__(module), name)
    program = pickle.dumps({"cfg": _Calls(called, f"touch {witness}")}, protocol=2)

    with pytest.raises(FileFormatError, match=rf"asks for \w+\.{named}, which is no plain data"):
        Graph.from_circuit_tracer(_zip(tmp_path / "graph.pt", program))
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["torch.load", "torch._utils._rebuild_parameter", "circuit_tracer.graph.Graph", "whence.results.store.read"]
)
def test_names_that_are_not_listed_are_refused(tmp_path: Path, name: str) -> None:
    module, _, last = name.rpartition(".")
    program = f"c{module}\n{last}\n.".encode()

    with pytest.raises(FileFormatError, match=rf"asks for {name}"):
        read_zip(_zip(tmp_path / "graph.pt", program))


def test_setting_attributes_of_a_listed_name_changes_nothing_outside(tmp_path: Path) -> None:
    from whence.results import torch_zip

    before = vars(torch_zip._tensor).copy(), torch_zip._tensor.__defaults__
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__(K\x01tstb."

    read_zip(_zip(tmp_path / "graph.pt", program))

    assert (vars(torch_zip._tensor), torch_zip._tensor.__defaults__) == before


def _tensor_program(size: int) -> bytes:
    """A pickle of one tensor of `size` floats on storage 0, as torch writes it."""
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00(J" + struct.pack("<i", size) + b"t(K\x00t"
        b"\x89ccollections\nOrderedDict\n)RtR."
    )


def test_a_tensor_is_rebuilt_from_its_storage(tmp_path: Path) -> None:
    file = _zip(tmp_path / "one.pt", _tensor_program(4), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})

    assert read_zip(file).tolist() == [1.0] * 4  # its stride is 0


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    file = _zip(tmp_path / "bomb.pt", _tensor_program(10**9), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})

    with pytest.raises(FileFormatError, match=r"shape \(1000000000,\) in a storage of 4 numbers"):
        read_zip(file)


@pytest.mark.parametrize("program", [b"", b"\x80\x02", b"garbage", b"\x80\x02]."])
def test_damaged_files_are_refused(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(FileFormatError, match=r"damaged|not a graph that circuit-tracer saved"):
        Graph.from_circuit_tracer(_zip(tmp_path / "graph.pt", program))


def test_files_that_are_no_such_zip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(FileFormatError, match="not a zip file as torch saves them"):
        Graph.from_circuit_tracer(tmp_path / "text.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(FileFormatError, match=r"it has 0 data\.pkl"):
        Graph.from_circuit_tracer(tmp_path / "other.pt")
    with pytest.raises(FileFormatError, match="another byte order"):
        read_zip(_zip(tmp_path / "big.pt", b"N.", byteorder=b"big"))


def test_a_matrix_of_another_size_is_refused(save: Callable[..., Path]) -> None:
    file = save(input_tokens=torch.arange(5))

    with pytest.raises(FileFormatError, match="does not fit 27 features, 5 tokens and 2 targets"):
        Graph.from_circuit_tracer(file)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nope\.pt does not exist"):
        Graph.from_circuit_tracer(tmp_path / "nope.pt")
    with pytest.raises(FileFormatError, match="is no file"):
        Graph.from_circuit_tracer(tmp_path)


def _peak(file: Path) -> int:
    """The most that Python held at once while a file was read or refused, in bytes."""
    tracemalloc.start()
    try:
        read_zip(file)
    except FileFormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_a_storage_that_is_named_many_times_is_read_once(tmp_path: Path) -> None:
    one = _tensor_program(4)[2:-1]
    program = b"\x80\x02(" + 500 * one + b"l."
    file = _zip(tmp_path / "many.pt", program, **{"data/0": bytes(1 << 20)})

    assert len(read_zip(file)) == 500
    assert _peak(file) < 16 << 20


@pytest.mark.parametrize(
    "called", [b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"ccircuit_tracer.graph\nLogitTarget\n"]
)
def test_one_long_list_is_not_copied_over_and_over(tmp_path: Path, called: bytes) -> None:
    long = b"(" + 20_000 * b"N" + b"tq\x00"
    again = called + b"(h\x00tR"
    spread = called + b"h\x00R"
    for name, calls in (("again", again), ("spread", spread)):
        file = _zip(tmp_path / f"{name}.pt", b"\x80\x02" + long + b"(" + 200 * calls + b"l.")

        assert _peak(file) < 8 << 20


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shared.pt", "w") as archive:
        archive.writestr("archive/data.pkl", _tensor_program(4))
        archive.writestr("archive/data/0", bytes(1 << 14))
        for i in range(1, 9):
            entry = copy(archive.getinfo("archive/data/0"))
            entry.filename = f"archive/data/{i}"
            archive.filelist.append(entry)  # in the directory, with no bytes of its own

    with pytest.raises(FileFormatError, match=r"claims to hold 1475[0-9]+ bytes, and has 172"):
        read_zip(tmp_path / "shared.pt")


def test_a_program_longer_than_any_graph_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"data\.pkl is longer than 16777216 bytes"):
        read_zip(_zip(tmp_path / "long.pt", b"N0" * (1 << 23) + b"N."))


@pytest.mark.parametrize(
    "program",
    [
        _tensor_program(4),  # its storage is not there
        b"\x80\x02ctorch\nSize\n)R.",  # without what it takes
        b"\x80\x02(K\x01K\x02tQ.",  # a storage of two parts
        b"\x80\x02h\x07.",  # nothing was kept under that number
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",  # more bytes than any machine has
    ],
)
def test_programs_that_make_no_sense_are_damaged_files(tmp_path: Path, program: bytes) -> None:
    with pytest.raises(FileFormatError, match="is damaged"):
        read_zip(_zip(tmp_path / "graph.pt", program))


def test_a_target_that_lacks_its_number_is_refused(tmp_path: Path) -> None:
    graph = layered(0, parity=True)
    content = {name: value for name, value in _content(graph.logit_token_ids).items() if name != "logit_targets"}
    torch.save(content, tmp_path / "whole.pt")  # noqa: TID251
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    program = entries.pop("data.pkl").removesuffix(b"u.")
    target = b"X\x0d\x00\x00\x00logit_targets(ccircuit_tracer.graph\nLogitTarget\n(X\x01\x00\x00\x00atRlu."

    with pytest.raises(FileFormatError, match="not a graph that circuit-tracer saved: tuple index out of range"):
        Graph.from_circuit_tracer(_zip(tmp_path / "short.pt", program + target, **entries))
