"""How whence's dataset attributions scale with components, layers and shards: processor seconds, plotted.

One thing is varied at a time from 4 layers of 128 components, 4 % of importances above 0: a batch by components and by
layers, a run of 16 windows by shards. Each size, and each shard, is a process of its own. Of a batch the fastest of
three runs counts, since what else the machine does can only add.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_model import TINY, Shape, save_setup
from measuring import Worker

HERE = Path(__file__).resolve().parent
CASES = ("as the peer", "weighted")
BASE = Shape(4, 128, 0.04)
RUN = replace(BASE, rows=64)
VARIED: dict[str, tuple[int, ...]] = {"components": (32, 64, 128, 256), "layers": (1, 2, 4, 8)}
FEW: dict[str, tuple[int, ...]] = {"components": (4,), "layers": (1,)}
SHARDS = (1, 2, 4, 8)

Seconds = dict[int, dict[str, float]]  # by what was varied, then by case


def measure_scaling(folder: Path, *, smoke: bool) -> Iterator[str]:
    """Measure and plot, one thing after another, and say what was found.

    Args:
        folder: takes dataset_scaling_components.png, dataset_scaling_layers.png and dataset_scaling_shards.png.
        smoke: tiny sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = TINY if smoke else BASE
    for name, values in (FEW if smoke else VARIED).items():
        found = {value: seconds(replace(base, **{name: value})) for value in values}
        yield from shown(found, name, folder)
    yield from shown(by_shards(TINY if smoke else RUN, (1,) if smoke else SHARDS), "shards", folder)


def shown(found: Seconds, name: str, folder: Path) -> Iterator[str]:
    """Plot what was found, and put it in words."""
    path = folder / f"dataset_scaling_{name}.png"
    plot(found, name, path)
    yield from (f"{value} {name}: {said(times)}" for value, times in found.items())
    yield f"plotted in {path}"


def said(found: dict[str, float]) -> str:
    """Seconds in words."""
    return ", ".join(f"{case} {value:.3g} s" for case, value in found.items())


def seconds(shape: Shape) -> dict[str, float]:
    """CPU seconds of a batch, by case."""
    with tempfile.TemporaryDirectory() as folder:
        save_setup(shape, Path(folder))
        worker = Worker([sys.executable, str(HERE / "dataset_whence.py"), folder, "1", *CASES], Path(folder, "log"))
        runs = {case: [worker.ask(case) for _ in range(3)] for case in CASES}
        worker.close()
    return {case: min(run["cpu"] for run in found) for case, found in runs.items() if "cpu" in found[0]}


def by_shards(shape: Shape, counts: tuple[int, ...]) -> Seconds:
    """CPU seconds of the longest shard, of all shards together, and of merging them."""
    found: Seconds = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            save_setup(shape, Path(folder))
            times = [shard_seconds(folder, shard, count) for shard in range(count)]
        shards = [one["shard"] for one in times]
        found[count] = {"longest shard": max(shards), "all shards": sum(shards), "merging": times[-1]["merge"]}
    return found


def shard_seconds(folder: str, shard: int, count: int) -> dict[str, float]:
    """CPU seconds of a shard, in a process of its own; the last one also merges."""
    command = [sys.executable, str(HERE / "dataset_shards.py"), folder, str(shard), str(count)]
    worker = Worker(command, Path(folder, "log"))
    runs = {case: worker.ask(case) for case in (["shard"] if shard < count - 1 else ["shard", "merge"])}
    worker.close()
    failed = [f"{case} {shard} of {count}: {run['error']}" for case, run in runs.items() if "error" in run]
    if failed:
        raise RuntimeError(failed[0])
    return {case: run["cpu"] for case, run in runs.items()}


def plot(found: Seconds, name: str, path: Path) -> None:
    """Lines on logarithmic axes, one a case."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for case in dict.fromkeys(case for one in found.values() for case in one):
        points = [(value, one[case]) for value, one in found.items() if case in one]
        axes.plot(*zip(*points, strict=True), marker="o", label=case)
    mark(axes, name, list(found))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def mark(axes: Any, name: str, values: list[int]) -> None:
    """Titles and ticks."""
    from matplotlib.ticker import LogLocator

    axes.set(xscale="log", yscale="log", xlabel=f"{name}{' a matrix' if name == 'components' else ''}")
    axes.set_ylabel(f"CPU seconds a {'run' if name == 'shards' else 'batch'}")
    axes.set_xticks(values, labels=[str(value) for value in values])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
