"""Small stores of dataset attributions: sums over windows of numbers that follow from the window's own number."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_writer import write_store

LINES = {"output": 3, "0.attn.q": 5, "embed": 7, "0.moe.neuron:3": 2, "bias": 1}
TARGETS, SOURCES = ("output", "0.attn.q"), ("embed", "0.moe.neuron:3", "bias")
STATISTICS = ("attr", "attr.half", "attr.square", "attr_abs")
PAIRS = {(target, source): source != "embed" for target in TARGETS for source in SOURCES}
ONLY = {("output", "bias"): ("attr", "attr.half")}
SETTINGS = {"model": "small", "options": {"norms": "frozen", "metrics": ["attr", "attr_abs"]}}


def header(windows: Iterable[int], settings: dict[str, object] | None = None) -> Header:
    windows = tuple(windows)
    return Header(
        tokens=sum(10 + window for window in windows),
        windows=windows,
        targets={site: _axis(site, windows, "value", "square") for site in TARGETS},
        sources={site: _axis(site, windows, "importance") for site in SOURCES},
        pairs=PAIRS,
        statistics=STATISTICS,
        only=ONLY,
        settings=settings or SETTINGS,
        provenance={},
    )


def blocks(windows: Iterable[int]) -> list[tuple[str, str, dict[str, Tensor]]]:
    windows, at = tuple(windows), header(())
    return [
        (*pair, {name: _sum(windows, number, (LINES[pair[0]], LINES[pair[1]]), name) for name in at.of(pair)})
        for number, pair in enumerate(PAIRS)
    ]


def store(path: Path, windows: Iterable[int], settings: dict[str, object] | None = None) -> Path:
    windows = tuple(windows)
    extra = {"gram": _sum(windows, 99, (4, 4), "gram"), "unembedding": torch.arange(12.0).reshape(3, 4)}
    return write_store(path, header(windows, settings), blocks(windows), extra)


def _axis(site: str, windows: tuple[int, ...], *quantities: str) -> Axis:
    n = LINES[site]
    return Axis(site, 3 * torch.arange(n), 3 * n, {name: _sum(windows, 7, (n,), name) for name in quantities})


def _sum(windows: tuple[int, ...], number: int, shape: tuple[int, ...], name: str) -> Tensor:
    total = torch.zeros(shape, dtype=torch.float64)
    for window in windows:
        seed = 1000 * number + 10 * window + len(name)
        total += torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return total
