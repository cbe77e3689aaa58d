"""Dataset attributions with random numbers, and the windows they are the sums of."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whence.results.dataset_axes import METRICS, STREAM, Axis, Header
from whence.results.dataset_memory import MemoryStore, Pair

WINDOW_TOKENS = (96, 96, 96, 40)
VOCABULARY, D_MODEL = 12, 5
STRINGS = {"2": " the", "5": "▁cat", "7": "\n"}
IDS = {  # site -> stored units, size
    "embed": ([2, 5, 7, 9], VOCABULARY),
    "pos_embed": ([0], 1),
    "0.attn.q": ([0, 1, 4], 6),
    "0.attn.v": ([1, 2], 4),
    "0.attn.o": ([0, 3, 5, 6], 8),
    "0.attn.o.bias": ([0], 1),
    "1.attn.head.q": ([0, 3], 4),
    "1.mlp.feature": ([10, 11, 40], 64),
    STREAM: (list(range(D_MODEL)), D_MODEL),
    "output": ([2, 9], VOCABULARY),
}
SOURCES = ("embed", "pos_embed", "0.attn.q", "0.attn.v", "0.attn.o", "0.attn.o.bias", "1.mlp.feature")
EARLY = ("embed", "pos_embed")
LATE = (*EARLY, "0.attn.o", "0.attn.o.bias")
FEEDS: dict[str, tuple[str, ...]] = {
    "0.attn.q": EARLY,
    "0.attn.v": EARLY,
    "0.attn.o": ("0.attn.q", "0.attn.v"),
    "1.attn.head.q": LATE,
    "1.mlp.feature": LATE,
    STREAM: (*LATE, "1.mlp.feature"),
    "output": (*LATE, "1.mlp.feature"),
}
PAIRS: dict[Pair, bool] = {(to, site): site != "0.attn.q" for to, sites in FEEDS.items() for site in sites}


@dataclass(frozen=True)
class Made:
    """A store, and by pair and metric the sums of its windows [window, row, column]."""

    store: MemoryStore
    windows: dict[Pair, dict[str, Tensor]]


def made(seed: int = 0, extras: bool = True, settings: dict[str, Any] | None = None, ties: bool = False) -> Made:
    """Random sums of four windows; `ties` makes them small integers, with many zeros."""
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=random, dtype=torch.float64)
        return drawn.round() if ties else drawn

    windows: dict[Pair, dict[str, Tensor]] = {}
    for to, site in PAIRS:
        shape = len(WINDOW_TOKENS), len(IDS[to][0]), len(IDS[site][0])
        sums = {"attr": numbers(*shape), "attr_abs": numbers(*shape), "mean_squared_attr": numbers(*shape).square()}
        windows[to, site] = {"attr": sums["attr"]} if to == STREAM else sums
    gram = numbers(D_MODEL, D_MODEL)
    kept = {"unembedding": numbers(VOCABULARY, D_MODEL).float(), "gram": gram @ gram.T} if extras else {}
    blocks = {pair: statistics(sums) for pair, sums in windows.items()}
    return Made(MemoryStore(_header(random, settings or {}), blocks, kept), windows)


def statistics(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    tokens = torch.tensor(WINDOW_TOKENS, dtype=torch.float64)[:, None, None]
    out: dict[str, Tensor] = {}
    for metric, each in sums.items():
        out |= {metric: each.sum(0), f"{metric}.half": each[1::2].sum(0), f"{metric}.square": (each**2 / tokens).sum(0)}
    return out


def complete(seed: int = 0) -> MemoryStore:
    """A store whose targets are the sums of their sources: Σ_s attr = Σ c y and Σ_s attr_abs = Σ c|y|, above 0."""
    store = made(seed).store
    blocks = {pair: dict(each) for pair, each in store.blocks.items()}
    targets = dict(store.header.targets)
    for site, axis in targets.items():
        pairs = [pair for pair in PAIRS if pair[0] == site]
        for pair in pairs:
            blocks[pair]["attr_abs"] = blocks[pair]["attr"].abs()
        total = {name: torch.cat([blocks[pair][name] for pair in pairs], 1).sum(1) for name in ("attr", "attr_abs")}
        quantities = dict(axis.quantities) | {"value": total["attr"], "absolute": total["attr_abs"]}
        targets[site] = replace(axis, quantities=quantities)
    return MemoryStore(replace(store.header, targets=targets), blocks, store.extras)


def _header(random: torch.Generator, settings: dict[str, Any]) -> Header:
    def axis(site: str, names: tuple[str, ...]) -> Axis:
        ids, size = IDS[site]
        drawn = {name: torch.rand(len(ids), generator=random, dtype=torch.float64) * 50 + 1 for name in names}
        return Axis(site, torch.tensor(ids), size, drawn)

    names = tuple(f"{metric}{what}" for metric in METRICS for what in ("", ".half", ".square"))
    return Header(
        tokens=sum(WINDOW_TOKENS),
        windows=tuple(range(len(WINDOW_TOKENS))),
        targets={site: axis(site, ("importance", "value", "absolute", "square")) for site in FEEDS},
        sources={site: axis(site, ("importance", "fired")) for site in SOURCES},
        pairs=PAIRS,
        statistics=names,
        only={pair: names[:3] for pair in PAIRS if pair[0] == STREAM},
        settings={"token_strings": STRINGS, "logit_scale": 0.5} | settings,
        provenance={"model": "random"},
    )
