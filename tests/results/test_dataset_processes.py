import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from whence.results import dataset_manifest, dataset_writer
from whence.results.dataset_axes import METRICS, Axis, Header
from whence.results.dataset_layout import AXES, Layout, Packing, axes_arrays, axes_packing
from whence.results.dataset_manifest import Said
from whence.results.dataset_store import open_store
from whence.results.dataset_writer import write_store

# Replaces a store over and over; every number of its n-th is n.
WRITER = """
import sys
import test_dataset_processes as own
for number in range(1, int(sys.argv[2])):
    own.numbered(sys.argv[1], number)
    print(number, flush=True)
"""
PAIRS = {(f"{layer}.attn.q", f"{layer}.{name}"): True for layer in range(6) for name in ("attn.o", "mlp.down")}
# What an act adds to the bytes read and to the memory in use; the peak is reset before it.
MEASURE = """
import re, sys
import torch
from whence.results.dataset_merge import merge_stores
from whence.results.dataset_store import open_store
def now():
    text = open("/proc/self/io").read() + open("/proc/self/status").read()
    return [int(re.search(name + r":\\s+(\\d+)", text)[1]) for name in ("rchar", "VmRSS", "VmHWM")]
{first}
open("/proc/self/clear_refs", "w").write("5")
before = now()
{act}
after = now()
print(after[0] - before[0], (after[1] - before[1]) * 1024, (after[2] - before[1]) * 1024)
"""


def numbered(folder: str | Path, number: int) -> Path:
    """A store whose every number is the same."""
    value = torch.full((40, 30), float(number), dtype=torch.float64)
    targets = {target: Axis(target, torch.arange(40), 40, {"value": value[:, 0]}) for target, _ in PAIRS}
    sources = {source: Axis(source, torch.arange(30), 30) for _, source in PAIRS}
    header = Header(number, (number,), targets, sources, PAIRS, ("attr", "attr_abs"), {}, {}, {})
    return write_store(folder, header, [(*pair, {"attr": value, "attr_abs": value}) for pair in PAIRS])


def _all_numbers(folder: Path) -> set[float]:
    opened = open_store(folder)
    out = {float(opened.header.tokens), *(float(window) for window in opened.header.windows)}
    for axis in opened.header.targets.values():
        out |= set(axis.quantities["value"].tolist())
    for pair in PAIRS:
        out |= {number for name in ("attr", "attr_abs") for number in opened.block(*pair, name).unique().tolist()}
    return out


def _start(folder: Path, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(times)]
    places = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=places)


def _measured(act: str, first: str = "") -> tuple[int, int, int]:
    """Bytes read, memory added, and memory added at the peak; `first` is done before."""
    command = [sys.executable, "-c", MEASURE.format(act=act, first=first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read, added, peak = map(int, done.stdout.split())
    return read, added, peak


def test_a_reader_sees_whole_stores_while_a_writer_replaces_them(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "run", 0)
    seen: set[float] = set()

    with _start(folder, 40) as writer:
        while writer.poll() is None:
            numbers = _all_numbers(folder)
            assert len(numbers) == 1
            seen |= numbers

    assert writer.returncode == 0
    assert len(seen) > 3
    assert _all_numbers(folder) == {39.0}
    assert len([*folder.glob("blocks-*")]) == 1


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_writer_leaves_a_whole_store(tmp_path: Path, times: int) -> None:
    folder, dice = numbered(tmp_path / "run", 0), random.Random(0)

    for _ in range(times):
        with _start(folder, 10**6) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(dice.random() / 5)
            writer.kill()
            last = float([first, *writer.stdout.read().split()][-1])
        numbers = _all_numbers(folder)
        open_store(folder).verify()
        assert len(numbers) == 1
        assert numbers <= {last, last + 1}

    assert _all_numbers(numbered(folder, 7)) == {7.0}
    assert len([*folder.glob("blocks-*")]) == 1


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A store of 15 GB that takes no room: its files are cut to their length, with holes for blocks."""
    targets = {f"{site}.mlp.up": Axis(f"{site}.mlp.up", torch.arange(945), 945) for site in range(27)}
    sources = {f"{site}.mlp.down": Axis(f"{site}.mlp.down", torch.arange(945), 945) for site in range(26)}
    tokens = Axis("embed", torch.arange(50257), 50257, {"importance": torch.ones(50257, dtype=torch.float64)})
    pairs = {(target, source): True for target in targets for source in sources} | {("0.mlp.up", "embed"): True}
    header = Header(1, (0,), targets, sources | {"embed": tokens}, pairs, METRICS, {}, {}, {})
    layout, folder = Layout(header, torch.float64, {}), tmp_path / f"blocks-{0:032x}"
    folder.mkdir()
    for target, packing in layout.targets.items():
        with (folder / dataset_manifest.file_name(target)).open("wb") as stream:
            stream.write(packing.head)
            stream.truncate(packing.size)
    axes = axes_packing(targets.values(), header.sources.values())
    files = {AXES: dataset_writer._write_file(folder / AXES, axes, axes_arrays(header))}
    said = Said(folder.name, layout, axes, Packing([]), dict.fromkeys(pairs, ("0" * 32,) * 3), files)
    (tmp_path / "result.json").write_text(dataset_manifest.to_text(said))
    return tmp_path


def test_opening_fifteen_gigabytes_reads_and_takes_next_to_nothing(sparse: Path) -> None:
    held = sum(file.stat().st_size for file in sparse.glob("blocks-*/*"))
    blocks = len(open_store(sparse).header.pairs)

    read, added, peak = _measured(f"opened = open_store({str(sparse)!r}); opened.header")

    assert (held > 15e9, blocks) == (True, 703)
    assert read < 1_000_000
    assert added < 50_000_000
    assert peak < 50_000_000


def test_a_query_reads_the_lines_it_needs(sparse: Path) -> None:
    act = f"""opened = open_store({str(sparse)!r})
for name in opened.header.statistics:
    for source in list(opened.header.sources)[:-1]:
        opened.row("3.mlp.up", source, name, 5).abs().max()"""

    read, added, _ = _measured(act)

    assert read < 1_000_000
    assert added < 50_000_000


@pytest.mark.parametrize("limit", [None, 10])
def test_merging_takes_less_than_three_blocks(tmp_path: Path, limit: int | None) -> None:
    small, large = ([str(_ones(tmp_path / f"{n}-{shard}", n, shard)) for shard in range(5)] for n in (10, 1500))
    merge = "merge_stores({}, {!r}, expected=range(5), embed_top={})"
    results = str(tmp_path / "small"), str(tmp_path / "large")

    # The small ones load what torch loads late.
    _, _, peak = _measured(merge.format(large, results[1], limit), merge.format(small, results[0], limit and 5))

    assert peak < 3 * 1500 * 1500 * 8
    assert open_store(results[1]).row("output", "embed", "attr", 3).sum() == 5 * (limit or 1500)


def _ones(folder: Path, lines: int, window: int) -> Path:
    pairs = {("output", "embed"): True, ("output", "0.mlp.down"): True}
    axes = {site: Axis(site, torch.arange(lines), lines) for pair in pairs for site in pair}
    sources = {source: axes[source] for _, source in pairs}
    header = Header(1, (window,), {"output": axes["output"]}, sources, pairs, ("attr", "attr_abs"), {}, {}, {})
    block = torch.ones(lines, lines, dtype=torch.float64)
    return write_store(folder, header, [(*pair, {"attr": block, "attr_abs": block}) for pair in pairs])
