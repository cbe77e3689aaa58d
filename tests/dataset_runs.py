"""Whole dataset runs on a narrow model of one layer: plans of short rows, their shards, and stores side by side."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dataset_parts import importances
from families import GROUPED, build
from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.named import Given, sorted_out
from whence.methods.dataset import merge_run
from whence.methods.dataset_plan import DatasetPlan, make_plan
from whence.methods.dataset_settings import DatasetSettings
from whence.methods.dataset_shard import run_shard
from whence.model.linear import weight_of
from whence.model.matrices import matrices
from whence.model.model import Model
from whence.progress import Progress
from whence.results.dataset_store import Store, open_store

NARROW = dict(
    GROUPED, num_hidden_layers=1, hidden_size=16, intermediate_size=12, use_qkv_bias=True, partial_rotary_factor=0.5
)
TOKENS = (5, 9)  # whose logits are targets of every metric
SETTINGS = DatasetSettings(batch_size=2, sequence_length=6, fold=2, pack=False, output_tokens=TOKENS)


@cache
def model() -> Model:
    """Queries, keys, values, a gated MLP and norms with biases, in float32; the same in any process."""
    return Model(build("stablelm", NARROW))


@cache
def given() -> Given:
    """Random components of every matrix, to the bit the same in any process; one of the keys is dead."""
    generator, parts = torch.Generator().manual_seed(0), dict[str, Part]()
    for site, one in matrices(model().layout).items():
        if one.layer is not None:
            W, count = weight_of(one.module), 2 + len(parts) % 3
            V = torch.randn(W.shape[1], count, generator=generator) / W.shape[1] ** 0.5
            U = V.T @ W.T + 0.1 * torch.randn(count, len(W), generator=generator)
            parts[site] = Part(site, V, U, torch.arange(count) != 1 if site == "0.attn.k" else None)
    return sorted_out(ParameterComponents(parts, importances(parts)))


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


def merged(plan: DatasetPlan, shards: int = 1, components: Given | None = None) -> Store:
    """The result of a plan in so many shards."""
    sharded(plan, shards, components)
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


def gaps(store: Store) -> dict[str, float]:
    """By target site whose sources sum to it: how far they miss its `value`, over the parts' magnitudes."""
    header, found = store.header, dict[str, float]()
    for site, axis in header.targets.items():
        sources = [source for (target, source), held in header.pairs.items() if target == site and held]
        if sources:
            parts = torch.cat([store.block(site, source, "attr") for source in sources], 1)
            size = parts.abs().sum(1) + axis.quantities["absolute"]
            found[site] = float(((parts.sum(1) - axis.quantities["value"]).abs() / size.clamp_min(1e-300)).max())
    return found


class Stopped(Exception):
    """What `stopping` raises."""


def stopping(last: int) -> Progress:
    """Progress that raises after so many windows."""

    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("windows", last):
            raise Stopped

    return progress
