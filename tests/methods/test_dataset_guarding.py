import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dataset_killed
from dataset_runs import Stopped, documents, given, model, planned, same_bits, sharded, stopping
from families import fresh
from whence.engine.dataset.blocks import Window
from whence.engine.dataset.totals import Seen, Totals
from whence.errors import FileFormatError, LedgerError, WhenceError
from whence.methods import dataset_shard
from whence.methods.dataset_plan import DatasetPlan
from whence.methods.dataset_shard import _Shard, run_shard
from whence.methods.dataset_sizes import sizes_of
from whence.methods.fingerprint import fingerprint
from whence.model.model import Model
from whence.results.dataset_folder import held
from whence.results.dataset_store import open_store
from whence.results.shard_progress import read_progress

HOLD = """
import sys, time
from pathlib import Path
from whence.results.dataset_folder import held
with held(Path(sys.argv[1]), "taken"):
    print(flush=True)
    time.sleep(600)
"""


def interrupted(plan: DatasetPlan, last: int) -> None:
    """The plan's one shard up to a window, written."""
    with pytest.raises(Stopped):
        run_shard(plan, model(), given(), flush_seconds=0.0, progress=stopping(last))


def damaged(folder: Path) -> str:
    """Change one byte of a block; the file's name."""
    (file, *_) = sorted(folder.glob("blocks-*/target-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)
    return file.name


@pytest.mark.parametrize("begun", [lambda plan: interrupted(plan, 2), sharded], ids=["unfinished", "finished"])
def test_a_damaged_store_is_not_taken_up_and_says_what_to_remove(
    tmp_path: Path, begun: Callable[[DatasetPlan], object]
) -> None:
    plan, folder = planned(tmp_path), tmp_path
    begun(plan)
    folder = plan.shard_folder(0, 1)
    name = damaged(folder)
    with pytest.raises(FileFormatError, match=rf"{name} is damaged: .* Remove .*000-of-001 to compute this shard"):
        sharded(plan)
    shutil.rmtree(folder)
    assert open_store(*sharded(plan)).header.windows == (0, 1, 2, 3)


def test_a_truncated_store_says_what_to_remove(tmp_path: Path) -> None:
    plan = planned(tmp_path, batches=2)
    (folder,) = sharded(plan)
    (file, *_) = folder.glob("blocks-*/target-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"must have \d+.* Remove .*000-of-001"):
        sharded(plan)


def test_a_second_process_is_kept_out_of_a_shard_until_the_first_has_ended_however_it_ends(tmp_path: Path) -> None:
    plan = planned(tmp_path, batches=2)
    lock = plan.shard_folder(0, 1).with_suffix(".lock")
    lock.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(WhenceError, match=r"another process works on this shard, .*000-of-001\. Wait for it"):
            sharded(plan)
        assert not plan.shard_folder(0, 1).exists()
        other.send_signal(signal.SIGKILL)
    assert open_store(*sharded(plan)).header.windows == (0,)


def test_a_shard_is_held_from_its_first_window_to_its_last_flush(tmp_path: Path) -> None:
    plan, met = planned(tmp_path), list[int]()

    def second(stage: str, done: int, total: int) -> None:
        with pytest.raises(WhenceError, match="another process works on this shard"):
            run_shard(plan, model(), given())
        met.append(done)

    run_shard(plan, model(), given(), progress=second)
    assert met == [1, 2, 3, 4]
    with held(plan.shard_folder(0, 1).with_suffix(".lock"), "taken"):
        pass


def test_where_no_lock_holds_a_slower_process_leaves_the_store_that_came_further(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    slow = _Shard(plan, model(), given(), 0, 1)
    totals, _ = slow._resumed()
    slow._window(0, totals)
    (folder,) = sharded(plan)
    before = (folder / "result.json").read_bytes()
    with pytest.raises(WhenceError, match="000-of-001 has 4 windows, and this process has come to 1: another process"):
        slow._flush(totals, False)
    assert (folder / "result.json").read_bytes() == before


def test_a_killed_worker_leaves_no_lock_behind(tmp_path: Path) -> None:
    plan = planned(tmp_path, documents(40), fold=1)
    environment = {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, dataset_killed.__file__, str(plan.folder), "1", "1"]
    subprocess.run(command, capture_output=True, check=True, env=environment)
    told = read_progress(plan.shard_folder(0, 1).with_suffix(".progress.json"))
    assert told is not None
    assert told.finished


@pytest.mark.parametrize(("flush_seconds", "windows"), [(0.0, [1, 2, 3, 4]), (1.0, [1, 4])])
def test_a_write_is_waited_for_twenty_times_as_long_as_the_last_one_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_seconds: float, windows: list[int]
) -> None:
    now, flushed, flush, count = [0.0], list[int](), _Shard._flush, _Shard._window

    def counts(self: _Shard, number: int, totals: Totals) -> None:
        count(self, number, totals)
        now[0] += 1.0

    def flushes(self: _Shard, totals: Totals, finished: bool) -> None:
        flush(self, totals, finished)
        flushed.append(len(totals.windows))
        now[0] += 0.2  # so that the next one comes after four seconds

    monkeypatch.setattr(_Shard, "_window", counts)
    monkeypatch.setattr(_Shard, "_flush", flushes)
    monkeypatch.setattr(dataset_shard.time, "monotonic", lambda: now[0])
    run_shard(planned(tmp_path), model(), given(), flush_seconds=flush_seconds)
    assert flushed == windows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("settings", [{}, {"norms": "live", "weighting": "both"}], ids=["sums", "no sums"])
def test_numbers_that_are_not_finite_are_refused_whatever_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, settings: dict[str, str]
) -> None:
    plan, fold = planned(tmp_path, **settings), Totals.fold

    def spoiled(self: Totals, number: int, window: Window, seen: Seen) -> None:
        window.sums["0.attn.q", "embed"]["attr_abs"][0, 1] = value
        fold(self, number, window, seen)

    monkeypatch.setattr(Totals, "fold", spoiled)
    with pytest.raises(LedgerError, match=r"window 0: attr_abs of 0\.attn\.q by embed is not finite, .*pack=True"):
        run_shard(plan, model(), given())
    assert not plan.shard_folder(0, 1).exists()


def test_sums_of_odd_windows_are_kept_from_the_first_odd_window_and_written_as_zeros_before(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    shard = _Shard(plan, model(), given(), 0, 1)
    totals, _ = shard._resumed()
    shard._window(0, totals)
    assert not any(name.endswith(".half") for own in totals.blocks.values() for name in own)
    shard._flush(totals, False)
    store = open_store(plan.shard_folder(0, 1))
    assert not any(store.block(*pair, "attr.half").any() for pair in store.header.pairs)
    shard._window(1, totals)
    assert all({"attr", "attr.half"} <= set(own) for own in totals.blocks.values())


def test_one_shard_resumed_after_an_even_window_has_the_bits_of_one_that_went_through(tmp_path: Path) -> None:
    plan, other = planned(tmp_path / "one"), planned(tmp_path / "two")
    interrupted(plan, 1)
    same_bits(open_store(*sharded(plan)), open_store(*sharded(other)))


def test_rows_are_wired_up_for_the_longest_that_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked, wire = planned(tmp_path, [[5, 6, 7], [5, 6]], sequence_length=64), list[int](), dataset_shard.wire
    assert (plan.rows.longest, plan.rows.sequence_length) == (3, 64)
    for module in ("dataset_shard", "dataset_sizes"):
        monkeypatch.setattr(f"whence.methods.{module}.wire", lambda *given: asked.append(given[-1]) or wire(*given))
    sharded(plan)
    sizes_of(plan, model(), given())
    assert asked == [3, 3]


def changed(name: str, at: int) -> Model:
    """A model with a number of one of its tensors changed a little."""
    hf = fresh("llama")
    with torch.no_grad():
        dict(hf.named_parameters())[name].view(-1)[at] *= 1 + 1e-6
    return Model(hf)


def test_a_fingerprint_tells_checkpoints_apart_that_differ_in_one_number() -> None:
    plain = Model(fresh("llama"))
    large = max(plain.hf.named_parameters(), key=lambda one: one[1].numel())
    few = set(range(0, large[1].numel(), large[1].numel() // 16))
    at = next(place for place in range(100, large[1].numel()) if place not in few)
    assert fingerprint(plain) == fingerprint(Model(fresh("llama")))
    assert len({fingerprint(plain), *(fingerprint(changed(large[0], place)) for place in (0, at, at + 1))}) == 4


def test_a_fingerprint_tells_apart_weights_that_changed_places() -> None:
    hf = fresh("llama")
    weight = max(hf.parameters(), key=torch.numel)
    before = fingerprint(Model(hf))
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert fingerprint(Model(hf)) != before


def test_a_fingerprint_is_the_same_with_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    found = set[str]()
    try:
        for count in (1, min(os.cpu_count() or 1, 4) + 1):
            torch.set_num_threads(count)
            found.add(fingerprint(model()))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
