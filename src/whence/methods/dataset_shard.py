"""One shard of a dataset run: its windows summed, flushed as it goes, taken up where it stopped.

At the end of a window its sums go into float64 totals; now and then, and at the end, the totals are written as a whole
and atomically. A process killed at any moment loses at most the windows since; what is summed is the same, bit for bit,
because windows are summed in order and nothing else is carried from one to the next. What is taken up is read whole and
compared with its checksums; one process alone works on a shard, as long as it holds the lock beside it.

Cost: the engine's, one write of all blocks a flush, and one reading of them where a shard is taken up.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from whence.engine.dataset.blocks import Window
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.named import Given
from whence.engine.dataset.totals import OF_SOURCES, OF_TARGETS, Seen, Totals, axes_of, belongs
from whence.engine.dataset.wiring import wire
from whence.errors import FileFormatError, WhenceError
from whence.methods.dataset_plan import DatasetPlan
from whence.methods.dataset_stopping import may_stop
from whence.methods.fingerprint import fingerprint
from whence.model.batch import Batch
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results import dataset_manifest, manifest
from whence.results.dataset_axes import STREAM, Header
from whence.results.dataset_folder import held
from whence.results.dataset_store import Store, open_store
from whence.results.dataset_writer import write_store
from whence.results.shard_progress import ShardProgress, progress_file, read_progress, write_progress

FLUSH_SECONDS = 60.0
_WORTH = 20  # times what it took, a write is waited for: not more than a twentieth of the time is spent on writing


def run_shard(
    plan: DatasetPlan,
    model: Model,
    given: Given,
    shard: int = 0,
    shards: int = 1,
    *,
    flush_seconds: float = FLUSH_SECONDS,
    progress: Progress = silent,
) -> Path:
    """The store of one shard, finished.

    Args:
        plan: the run.
        model: its model.
        given: its components.
        shard: which one, from 0.
        shards: of how many.
        flush_seconds: write the totals at the first window's end after so many seconds, or after twenty times what the
            last write took if that is more; 0 writes at the end of every window.
        progress: called with ("windows", done, total).

    Raises:
        ValueError: a model or components that are not the plan's.
        LedgerError: rows that do not add up.
        FileFormatError: a store in the shard's place that is damaged, or not this shard's.
        WhenceError: another process works on this shard.
    """
    if fingerprint(model) != plan.describes["model"]["weights"] or given.describe() != plan.describes["components"]:
        raise ValueError(f"{plan.folder} was planned for another model or other components; load those, or plan anew")
    return _Shard(plan, model, given, shard, shards).run(flush_seconds, progress)


@dataclass(eq=False)
class _Shard:
    plan: DatasetPlan
    model: Model
    given: Given
    shard: int
    shards: int

    def __post_init__(self) -> None:
        settings, self.rows = self.plan.settings, self.plan.rows
        tokens = torch.tensor(settings.output_tokens, dtype=torch.long)
        self.wired = wire(self.model, self.given, self.rows.seen, tokens, settings.options, self.rows.longest)
        self.kernels = Kernels(self.wired)
        self.folder = self.plan.shard_folder(self.shard, self.shards)
        self.todo = self.plan.of(self.shard, self.shards)
        self.progress = progress_file(self.plan.folder, self.shard, self.shards)
        earlier = read_progress(self.progress)
        self.started = time.monotonic() - (0.0 if earlier is None else earlier.seconds)

    def run(self, flush_seconds: float, progress: Progress) -> Path:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = self.folder.with_name(f"{self.folder.name}.lock")
        with held(lock, f"another process works on this shard, {self.folder}. Wait for it, or end it."):
            self._run(flush_seconds, progress)
        return self.folder

    def _run(self, flush_seconds: float, progress: Progress) -> None:
        totals, finished = self._resumed()
        self._tell(totals, finished)
        flushed, wait = time.monotonic(), flush_seconds
        for number in self.todo[len(totals.windows) :]:
            if finished:
                break
            self._window(number, totals)
            finished = number == self.todo[-1] or may_stop(totals, self.plan.settings.stop_at)
            began = time.monotonic()
            if finished or began - flushed >= wait:
                self._flush(totals, finished)
                flushed = time.monotonic()
                wait = max(flush_seconds, _WORTH * (flushed - began)) if flush_seconds else 0.0
            self._tell(totals, finished)
            progress("windows", len(totals.windows), len(self.todo))
        if not finished:  # no window is this shard's
            self._flush(totals, True)
            self._tell(totals, True)

    # ------------------------------------------------------------ counting
    def _window(self, number: int, totals: Totals) -> None:
        window, seen, settings = Window(), Seen(), self.plan.settings
        for index in self.plan.batches_of(number):
            ids, lengths, numbers = self.rows.batch(index, settings.batch_size)
            batch = Batch(ids.to(self.model.device), lengths.to(self.model.device))
            seen.add(self.wired, self.kernels.count(batch, numbers, window))
        self.kernels.finish(window)
        totals.fold(number, window, seen)

    # ------------------------------------------------------------ disk
    def _flush(self, totals: Totals, finished: bool) -> None:
        self._refuse_more(totals)
        targets, sources = axes_of(self.wired, totals, bool(self.kernels.constants))
        statistics = self._statistics(self.plan.settings.metrics)
        pairs = self._pairs(totals)
        only: dict[tuple[str, str], tuple[str, ...]] = {}
        for target, source in pairs:
            own = self._statistics(self.wired.metrics_of(self.wired.readings[target]))
            if own != statistics:
                only[target, source] = own
        stopped = finished and len(totals.windows) < len(self.todo)
        said = dict(self.plan.about) | {"finished": finished, "stopped_early": stopped, "worst_gap": totals.worst}
        header = Header(
            totals.tokens,
            tuple(totals.windows),
            targets,
            sources,
            pairs,
            statistics,
            only,
            self.plan.describes,
            said,
        )
        write_store(self.folder, header, self._blocks(totals, header), self._extra(totals))

    def _refuse_more(self, totals: Totals) -> None:
        """Leave a store alone that has come further: where disks know no locks, another process has written it."""
        if not (self.folder / manifest.NAME).exists():
            return
        there, here = len(dataset_manifest.read(self.folder).layout.header.windows), len(totals.windows)
        if there > here:
            raise WhenceError(
                f"{self.folder} has {there} windows, and this process has come to {here}: another process works on "
                "this shard, or has finished it. Its store is left as it is; start again if no other process is left."
            )

    def _statistics(self, metrics: tuple[str, ...]) -> tuple[str, ...]:
        ends = ("", ".half", ".square") if self.plan.settings.standard_errors else ("",)
        return tuple(f"{metric}{end}" for metric in metrics for end in ends)

    def _pairs(self, totals: Totals) -> dict[tuple[str, str], bool]:
        """Every pair that has a way, and the constants; whether each belongs to a sum."""
        constants = [(site, "bias") for site in self.kernels.constants]
        return {pair: belongs(self.wired, pair) for pair in (*self.wired.routes, *constants)}

    def _blocks(self, totals: Totals, header: Header) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        for target, source in header.pairs:
            own = totals.blocks.get((target, source), {})
            shape = len(header.targets[target].ids), len(header.sources[source].ids)
            none = torch.zeros(1, 1, dtype=torch.float64).expand(shape)  # takes no memory until it is written
            names = header.of((target, source))
            yield target, source, {name: own[name].cpu() if name in own else none for name in names}

    def _extra(self, totals: Totals) -> dict[str, Tensor]:
        if STREAM not in self.wired.readings:
            return {}
        d = self.model.d_model
        return {"gram": torch.zeros(d, d, dtype=torch.float64) if totals.gram is None else totals.gram.cpu()}

    def _resumed(self) -> tuple[Totals, bool]:
        """What an earlier process of this shard left, and whether that was all of it."""
        totals = Totals(self.wired, self.plan.settings.standard_errors)
        if not (self.folder / manifest.NAME).exists():  # nothing, or what a process began that was killed
            return totals, False
        store = self._verified()
        header = store.header
        done = list(header.windows)
        if dict(header.settings) != dict(self.plan.describes) or done != [*self.todo][: len(done)]:
            raise FileFormatError(f"{self.folder} holds another run's sums; remove it, or plan a new run")
        device = self.wired.seen.device
        for pair in header.pairs:
            totals.blocks[pair] = {name: store.block(*pair, name).to(device, copy=True) for name in header.of(pair)}
        for mine, axes, names in (
            (totals.targets, header.targets, OF_TARGETS),
            (totals.sources, header.sources, OF_SOURCES),
        ):
            for site, axis in axes.items():
                if site != "bias":
                    mine[site] = {name: axis.quantities[name].to(device, copy=True) for name in names}
        gram = store.extra("gram")
        totals.gram = None if gram is None else gram.to(device, copy=True)
        totals.tokens, totals.windows = header.tokens, done
        totals.worst = float(header.provenance.get("worst_gap", 0.0))
        return totals, bool(header.provenance.get("finished"))

    def _verified(self) -> Store:
        """What an earlier process wrote, found to be as it was written."""
        try:
            store = open_store(self.folder)
            store.verify()
        except FileFormatError as error:
            raise FileFormatError(f"{error} Remove {self.folder} to compute this shard from its beginning.") from error
        return store

    def _tell(self, totals: Totals, finished: bool) -> None:
        write_progress(
            self.progress,
            ShardProgress(
                windows_done=len(totals.windows),
                windows=len(self.todo),
                tokens=totals.tokens,
                seconds=time.monotonic() - self.started,
                peak_bytes=_peak_bytes(),
                finished=finished,
            ),
        )


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
