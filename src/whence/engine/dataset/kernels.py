"""The kernels of a run, and what each batch brings to them.

Cost: that of the kernels; the order is that of the forward pass. Knows nothing of windows and files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from whence.engine.dataset.attention_keys import KeyKernel
from whence.engine.dataset.attention_queries import QueryKernel
from whence.engine.dataset.attention_values import ValueKernel
from whence.engine.dataset.backward import Backward
from whence.engine.dataset.blocks import Heard, Told, Window, weights_of
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.pointwise import PointwiseKernel, add_vector, slopes_of
from whence.engine.dataset.routes import Route
from whence.engine.dataset.sites import Inside, Reading, StreamRead, Where, Writing
from whence.engine.dataset.stream import StreamKernel
from whence.engine.dataset.weighing import Weighed, importances
from whence.engine.dataset.wired import Wired
from whence.model.batch import Batch
from whence.model.norms import probe_norm
from whence.model.sublayers import Sublayer


def constant_of_reading(reading: Reading) -> Tensor | None:
    """What a target reads whatever is written: the biases of its norm and of its encoder; None where there is none."""
    found = reading.constant
    if isinstance(reading.where, StreamRead) and reading.where.norm is not None:
        assert reading.V is not None
        bias = probe_norm(reading.where.norm, reading.V.shape[1]).bias.to(reading.V)
        own = reading.where.entered * (reading.V @ bias)
        found = own if found is None else found + own
    return found if found is not None and bool((found.abs() > 1e-12).any()) else None


@dataclass(frozen=True, eq=False)
class Counted:
    """One batch as the kernels see it."""

    passed: Passed
    weighed: Weighed
    heard: Mapping[str, Heard]
    told: Mapping[str, Told]


@dataclass(eq=False)
class Kernels:
    """The kernels of a run."""

    wired: Wired
    streams: list[tuple[StreamKernel, tuple[str, ...]]] = field(default_factory=list[Any])
    values: list[tuple[Sublayer, ValueKernel]] = field(default_factory=list[Any])
    scores: list[tuple[Sublayer, QueryKernel | KeyKernel]] = field(default_factory=list[Any])
    pointwise: list[tuple[Sublayer, PointwiseKernel]] = field(default_factory=list[Any])
    backwards: list[Backward] = field(default_factory=list[Backward])
    constants: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        readings = list(self.wired.readings.values())
        if not self.wired.options.live:
            found = {reading.site: constant_of_reading(reading) for reading in readings}
            self.constants = {site: one for site, one in found.items() if one is not None}
        self._streams([reading for reading in readings if isinstance(reading.where, StreamRead)])
        for reading in readings:
            if isinstance(reading.where, Inside):
                self._inside(reading, reading.where.sublayer)
            pulled = self._sources(reading, "backward")
            if pulled:
                self.backwards.append(Backward(reading, pulled, self.wired.options.spd))

    def _sources(self, reading: Reading, route: Route) -> tuple[Writing, ...]:
        routes = self.wired.routes
        return tuple(w for w in self.wired.writings.values() if routes.get((reading.site, w.site)) == route)

    def _streams(self, readings: list[Reading]) -> None:
        def alike(reading: Reading) -> tuple[Any, ...]:
            assert isinstance(reading.where, StreamRead)
            sources = tuple(w.site for w in self._sources(reading, "stream"))
            where = reading.where
            return where.time, id(where.norm), where.entered, self.wired.metrics_of(reading), sources

        for _, group in groupby(sorted(readings, key=alike), alike):
            own = tuple(group)
            sources, options = self._sources(own[0], "stream"), self.wired.options
            units = tuple(w for w in sources if w.kind == "units")
            vectors = tuple(w for w in sources if w.kind != "units")
            where = own[0].where
            assert isinstance(where, StreamRead)
            kernel = StreamKernel(where, own, units, vectors, options.live, options.spd)
            self.streams.append((kernel, self.wired.metrics_of(own[0])))

    def _inside(self, reading: Reading, sublayer: Sublayer) -> None:
        spd, kind = self.wired.options.spd, self._sources(reading, "pointwise")
        ends = {w.site: w.where.end for w in self.wired.writings.values() if isinstance(w.where, Inside)}
        if kind:
            self.pointwise.append((sublayer, PointwiseKernel(reading, tuple((ends[w.site], w) for w in kind))))
        values = self._sources(reading, "values")
        if values:
            self.values.append((sublayer, ValueKernel(reading, values, sublayer.heads or 1, spd)))
        scores = self._sources(reading, "scores")
        if not scores:
            return
        queries, keys = (tuple(w for w in scores if ends[w.site] == end) for end in ("q", "k"))
        how = self.wired.compared[sublayer]
        if queries:
            self.scores.append((sublayer, QueryKernel(reading, queries, how)))
        if keys:
            self.scores.append((sublayer, KeyKernel(reading, keys, how, spd)))

    @cached_property
    def heard(self) -> frozenset[nn.Module]:
        """The attentions that some kernel looks into."""
        return frozenset(sublayer.entrance for sublayer, _ in (*self.values, *self.scores))

    # ------------------------------------------------------------ one batch
    @torch.no_grad()
    def count(self, batch: Batch, rows: Int[Tensor, " example"], window: Window) -> Counted:
        """Add a batch to a window; what was seen of it comes back, for what else is counted."""
        wired, options = self.wired, self.wired.options
        eager, heard = bool(self.heard or self.backwards), () if options.spd else self.heard
        passed = passed_through(wired.layout, batch, wired.sites, wired.dtype, heard=heard, eager=eager)
        importance = importances(wired.parameters, wired.sites, passed, rows)
        if options.spd:
            passed = wired.passed(batch, heard=self.heard, eager=eager)
        real = batch.mask.flatten()[:, None].to(passed.tape.values[next(iter(passed.tape.values))])
        weighed = Weighed(importance, real, options.weighting, options.least)
        counted = self.as_seen(passed, weighed)
        self.add(counted, window)
        return counted

    def as_seen(self, passed: Passed, weighed: Weighed) -> Counted:
        """What the targets and the sources of a pass are, flattened and weighted."""
        heard: dict[str, Heard] = {}
        for name, reading in self.wired.readings.items():
            y = passed.tape.values[name].detach().flatten(0, 1)
            c = weighed.target(reading, y.shape[1])
            heard[name] = Heard(y, weights_of(self.wired.metrics_of(reading), c, y))
        told = {name: self._told(writing, passed, weighed) for name, writing in self.wired.writings.items()}
        return Counted(passed, weighed, heard, told)

    def _told(self, writing: Writing, passed: Passed, weighed: Weighed) -> Told:
        leaf = passed.tape.leaves[writing.site].detach().flatten(0, 1)
        if writing.kind == "units":
            return Told(leaf * weighed.source(writing, leaf.shape[1]))
        value = leaf * weighed.real.unflatten(0, (-1, *[1] * (leaf.ndim - 2)))
        if writing.kind == "tokens":
            ids = passed.batch.ids.flatten().to(self.wired.seen.device)
            return Told(value, torch.searchsorted(self.wired.seen, ids).clamp_max(len(self.wired.seen) - 1))
        return Told(value)

    def add(self, counted: Counted, window: Window) -> None:
        """Run every kernel on a batch."""
        passed, heard, told, metrics = counted.passed, counted.heard, counted.told, self.wired.options.metrics
        for site, constant in self.constants.items():
            add_vector(constant.expand_as(heard[site].y), heard[site].weights, window, (site, "bias"))
        for stream, own in self.streams:
            stream.count(passed, heard, told, window, own)
        for sublayer, value in self.values:
            attended = passed.attended[sublayer.entrance]
            value.count(attended.pattern, heard[value.reading.site], told, window, metrics)
        for sublayer, score in self.scores:
            score.count(passed.attended[sublayer.entrance], heard[score.reading.site], told, window, metrics)
        for sublayer, local in self.pointwise:
            slopes = self._slopes(sublayer, local, passed)
            local.count(slopes, heard[local.reading.site], told, window, metrics)
        if self.backwards:
            self._pull(counted, window)

    def _slopes(self, sublayer: Sublayer, kernel: PointwiseKernel, passed: Passed) -> dict[str, Tensor]:
        cut: dict[Where | None, MatrixSite] = {
            one.writes: one for one in self.wired.sites if isinstance(one, MatrixSite)
        }
        maps = {end: cut[writing.where] for end, writing in kernel.writings}
        modules = {end: site.map.module for end, site in maps.items()}
        outputs = {end: passed.tape.outputs[site.part.site] for end, site in maps.items()}
        return slopes_of(self.wired.layout, sublayer, modules, outputs, passed.tape.calls[sublayer.entrance])

    def _pull(self, counted: Counted, window: Window) -> None:
        cut = self.wired.passed(counted.passed.batch, cutting=True, heard=())
        for backward in self.backwards:
            metrics = self.wired.metrics_of(backward.reading)
            backward.count(cut, counted.heard[backward.reading.site], counted.told, window, metrics)

    def finish(self, window: Window) -> None:
        """Hand on what is kept over a window."""
        for stream, _ in self.streams:
            stream.finish(window)
