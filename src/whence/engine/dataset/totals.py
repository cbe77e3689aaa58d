"""Totals over windows in float64, with what queries need beside them, and the check that rows add up.

At the end of a window its blocks are folded in: `attr` += S; `attr.half` += S in windows with odd numbers;
`attr.square` += S²/n, with n the window's tokens, from which the standard error of a mean follows. Every target whose
sources belong to a sum is checked there: Σ_s attr = Σ c y, within a bound of the magnitudes of the parts, which are
sums over positions already.

Numbers that are not finite are refused, whatever belongs to sums.

Cost: three (one without standard errors) float64 numbers a metric for each number of a block, which are the memory: 72
bytes a number with three metrics, and 12 more for the window's own sums. What no window added to is not kept. Knows no
files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.dataset.blocks import Pair, Window
from whence.engine.dataset.kernels import Counted
from whence.engine.dataset.sites import Inside, StreamRead
from whence.engine.dataset.wired import Wired
from whence.errors import LedgerError
from whence.model.selfcheck import BOUND
from whence.results.dataset_axes import STREAM, Axis

Blocks = dict[Pair, dict[str, Float[Tensor, "target source"]]]
Quantities = dict[str, dict[str, Tensor]]  # site -> name -> a number a line
OF_TARGETS, OF_SOURCES = ("importance", "value", "absolute", "square"), ("importance", "fired")


@dataclass(eq=False)
class Totals:
    """Everything counted so far.

    Args:
        wired: the run's wiring.
        errors: keep halves and squares of windows.
    """

    wired: Wired
    errors: bool
    tokens: int = 0
    windows: list[int] = field(default_factory=list[int])
    blocks: Blocks = field(default_factory=dict[Pair, dict[str, Tensor]])
    targets: Quantities = field(default_factory=dict[str, dict[str, Tensor]])
    sources: Quantities = field(default_factory=dict[str, dict[str, Tensor]])
    gram: Tensor | None = None
    worst: float = 0.0

    def fold(self, number: int, window: Window, seen: "Seen") -> None:
        """Count a finished window.

        Raises:
            LedgerError: numbers that are not finite, or parts that do not add up to what they explain.
        """
        _refuse_odd(number, window, seen)
        self._check(number, window, seen)
        for pair, sums in window.sums.items():
            own = self.blocks.setdefault(pair, {})
            for metric, block in sums.items():
                block = block.double()
                _add(own, metric, block)
                if self.errors:
                    if number % 2:
                        _add(own, f"{metric}.half", block)
                    _add(own, f"{metric}.square", block.square() / seen.tokens)
        for mine, theirs in ((self.targets, seen.targets), (self.sources, seen.sources)):
            for site, found in theirs.items():
                for name, value in found.items():
                    _add(mine.setdefault(site, {}), name, value)
        if seen.gram is not None:
            self.gram = seen.gram if self.gram is None else self.gram + seen.gram
        self.tokens += seen.tokens
        self.windows.append(number)

    def _check(self, number: int, window: Window, seen: "Seen") -> None:
        bound = BOUND.get(self.wired.layout.hf.dtype, BOUND[torch.float32])
        for target, sources in sums_of(self.wired, window).items():
            parts = [window.sums[target, source]["attr"].double() for source in sources]
            total = torch.stack([part.sum(1) for part in parts]).sum(0)
            size = torch.stack([part.abs().sum(1) for part in parts]).sum(0) + seen.targets[target]["absolute"]
            gap = (total - seen.targets[target]["value"]).abs() / size.clamp_min(1e-30)
            worst = float(gap.max()) if len(gap) else 0.0
            self.worst = max(self.worst, worst)
            if not worst <= bound:
                raise LedgerError(
                    f"{target}: the attributions of window {number} miss what its units read by {worst:.1e} of the "
                    f"parts' magnitudes (line {int(gap.argmax())} of its axis; bound {bound:.0e}). Please report it."
                )


@dataclass(eq=False)
class Seen:
    """What is counted beside the blocks, for one window."""

    tokens: int = 0
    targets: Quantities = field(default_factory=dict[str, dict[str, Tensor]])
    sources: Quantities = field(default_factory=dict[str, dict[str, Tensor]])
    gram: Tensor | None = None

    def add(self, wired: Wired, counted: Counted) -> None:
        """Count a batch."""
        self.tokens += int(counted.weighed.real.sum())
        for name, reading in wired.readings.items():
            y = counted.heard[name].y.double() * counted.weighed.real
            c = counted.weighed.target(reading, y.shape[1]).double()
            own = self.targets.setdefault(name, {})
            for what, value in zip(OF_TARGETS, (c, c * y, c * y.abs(), y.square()), strict=True):
                _add(own, what, value.sum(0))
        for name, writing in wired.writings.items():
            own, told = self.sources.setdefault(name, {}), counted.told[name]
            if told.bucket is not None:
                once = counted.weighed.real[:, 0].double()
                c = torch.zeros(len(writing.ids), dtype=once.dtype, device=once.device)
                fired = c.index_add_(0, told.bucket, once)
                _add(own, "importance", fired)
                _add(own, "fired", fired.clone())
                continue
            c = counted.weighed.source(writing, len(writing.ids)).double()
            _add(own, "importance", c.sum(0))
            _add(own, "fired", (c > 0).double().sum(0))
        if STREAM in wired.readings:
            r = counted.heard[STREAM].y * counted.weighed.real
            self.gram = (0.0 if self.gram is None else self.gram) + (r.T @ r).double()


def _refuse_odd(number: int, window: Window, seen: Seen) -> None:
    """Refuse numbers that are not finite; they would spoil every total for good."""
    sums = {f"{one} of {t} by {s}": block for (t, s), own in window.sums.items() for one, block in own.items()}
    for site, own in (*seen.targets.items(), *seen.sources.items()):
        sums |= {f"{name} of {site}": value for name, value in own.items()}
    if seen.gram is not None:
        sums[f"gram of {STREAM}"] = seen.gram
    names = [name for name, value in sums.items() if value.numel()]
    if not names:
        return
    ends = torch.stack([torch.stack(sums[name].aminmax()).double() for name in names])  # nan where any number is nan
    odd = [name for name, finite in zip(names, ends.isfinite().all(1).tolist(), strict=True) if not finite]
    if odd:
        raise LedgerError(
            f"window {number}: {odd[0]} is not finite, like {len(odd) - 1} other sums. A model with sliding windows "
            "has such numbers in float64 where rows are padded: use float32, or pack=True. In float16 they overflow: "
            "use float32."
        )


def _add(own: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name in own:
        own[name] += value
    else:
        own[name] = value + 0.0  # as if added to zeros, which -0.0 tells apart: what is resumed starts from zeros


def sums_of(wired: Wired, window: Window) -> Mapping[str, list[str]]:
    """The sources, by target, that together are what the target reads."""
    found: dict[str, list[str]] = {}
    for pair in window.sums:
        if belongs(wired, pair) and "attr" in window.sums[pair]:
            found.setdefault(pair[0], []).append(pair[1])
    return found


def belongs(wired: Wired, pair: Pair) -> bool:
    """Whether a block's sources belong to a sum that equals the target.

    Readers of the stream need every source on a cut way; an attention's output map, values with the pattern held; an
    MLP's last map, `up` with its gate held. Edges from queries, keys and gates are local derivatives. Parameter
    components that count by their importance sum to less; features, which have 1 wherever they write, do not.
    """
    weighted = wired.parameters is not None and wired.options.weighting in ("source", "both")
    if wired.options.live or wired.options.spd or weighted:
        return False
    target, source = pair
    routes = {s: route for (t, s), route in wired.routes.items() if t == target}
    where = wired.readings[target].where
    if isinstance(where, StreamRead):
        return "backward" not in routes.values()
    if not isinstance(where, Inside):
        return False
    if where.sublayer.kind == "attn":
        return "values" in routes.values() and (source == "bias" or routes.get(source) == "values")
    up = f"{where.sublayer.layer}.glu.up"
    return routes.get(up) == "pointwise" and (source == "bias" or source.startswith(up))


def axes_of(wired: Wired, totals: Totals, constants: bool) -> tuple[dict[str, Axis], dict[str, Axis]]:
    """The axes of the targets and of the sources, with what was counted of them; `constants`: whether there are any."""
    targets = {
        name: Axis(name, one.ids.cpu(), one.size, _cpu(totals.targets.get(name, {}), OF_TARGETS, len(one.ids)))
        for name, one in wired.readings.items()
    }
    sources = {
        name: Axis(name, one.ids.cpu(), one.size, _cpu(totals.sources.get(name, {}), OF_SOURCES, len(one.ids)))
        for name, one in wired.writings.items()
    }
    if constants:
        everywhere = {name: torch.tensor([totals.tokens], dtype=torch.float64) for name in OF_SOURCES}
        sources["bias"] = Axis("bias", torch.zeros(1, dtype=torch.long), 1, everywhere)
    return targets, sources


def _cpu(found: Mapping[str, Tensor], names: tuple[str, ...], lines: int) -> dict[str, Tensor]:
    empty = torch.zeros(lines, dtype=torch.float64)
    return {name: found[name].cpu() if name in found else empty.clone() for name in names}
