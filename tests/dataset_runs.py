"""Whole dataset runs on a narrow model of one layer: plans of short rows, their shards, and stores side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dataset_parts import random_parts
from families import GROUPED, build
from whence.engine.dataset.named import Given, sorted_out
from whence.methods.dataset import merge_run
from whence.methods.dataset_plan import DatasetPlan, DatasetSettings, make_plan
from whence.methods.dataset_shard import run_shard
from whence.model.model import Model
from whence.results.dataset_store import Store, open_store

NARROW = dict(GROUPED, num_hidden_layers=1, hidden_size=16, intermediate_size=12, use_qkv_bias=True, partial_rotary_factor=0.5)
TOKENS = (5, 9)  # whose logits are targets of every metric
SETTINGS = DatasetSettings(batch_size=2, sequence_length=6, fold=2, pack=False, output_tokens=TOKENS)


@cache
def model() -> Model:
    """Queries, keys, values, a gated MLP and norms with biases, in float32; the same in any process."""
    return Model(build("stablelm", NARROW))


@cache
def given() -> Given:
    """Random components of every matrix."""
    return sorted_out(random_parts(model(), 2))


def documents(count: int = 13, seed: int = 0) -> list[list[int]]:
    """Token ids of documents of one to six tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (count,), generator=generator).tolist()
    return [torch.randint(4, 24, (length,), generator=generator).tolist() for length in lengths]


def planned(out: Path, data: Any = None, *, components: Given | None = None, **settings: Any) -> DatasetPlan:
    """A plan of four windows of two batches of two rows, the last of one row, unless settings say otherwise."""
    chosen = replace(SETTINGS, **settings)
    return make_plan(model(), components or given(), documents() if data is None else data, out, chosen)


def sharded(plan: DatasetPlan, shards: int = 1, components: Given | None = None) -> list[Path]:
    """The stores of all shards of a plan."""
    return [run_shard(plan, model(), components or given(), shard, shards) for shard in range(shards)]


def merged(plan: DatasetPlan, shards: int = 1) -> Store:
    """The result of a plan in so many shards."""
    sharded(plan, shards)
    return open_store(merge_run(plan.folder))


def same_bits(one: Store, other: Store) -> None:
    """Everything that is summed is the same, bit for bit."""
    assert differences(one, other) == {}
    assert (one.header.tokens, one.header.windows) == (other.header.tokens, other.header.windows)


def differences(one: Store, other: Store) -> dict[str, float]:
    """By array, the largest difference over the largest number, where there is one."""
    found: dict[str, float] = {}
    mine, theirs = arrays(one), arrays(other)
    assert list(mine) == list(theirs)
    for name, own in mine.items():
        if own.numpy().tobytes() != theirs[name].numpy().tobytes():
            found[name] = float((own - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-300))
    return found


def arrays(store: Store) -> dict[str, torch.Tensor]:
    """Blocks, quantities and the stream's gram matrix."""
    header = store.header
    blocks = {
        f"{source} -> {target} {name}": store.block(target, source, name)
        for target, source in header.pairs
        for name in header.of((target, source))
    }
    axes = {
        f"{side} {site} {name}": value
        for side, some in (("target", header.targets), ("source", header.sources))
        for site, axis in some.items()
        for name, value in axis.quantities.items()
    }
    gram = store.extra("gram")
    return blocks | axes | ({} if gram is None else {"gram": gram})


def quantity(store: Store, sites: Sequence[str], name: str) -> dict[str, torch.Tensor]:
    """One quantity of some targets."""
    return {site: store.header.targets[site].quantities[name] for site in sites}
