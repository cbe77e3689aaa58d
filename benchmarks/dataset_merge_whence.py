"""whence's side of dataset_merge.py: a worker. Arguments: a folder, rows and columns of a block."""

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from dataset_merge import METRICS, TARGETS, WORKERS
from measuring import Case, serve
from whence.results.dataset_axes import Axis, Header
from whence.results.dataset_merge import merge_stores
from whence.results.dataset_writer import write_store


def header(window: int, rows: int, columns: int) -> Header:
    """Everything but the blocks of one worker's store."""
    named = [f"{site}.attn.q" for site in range(TARGETS)]
    targets = {site: Axis(site, torch.arange(rows), rows) for site in named}
    sources = {"embed": Axis("embed", torch.arange(columns), columns)}
    pairs = dict.fromkeys(((site, "embed") for site in named), True)
    return Header(1, (window,), targets, sources, pairs, METRICS, {}, {}, {})


def blocks(rows: int, columns: int) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """Random sums."""
    for site in range(TARGETS):
        sums = {metric: torch.rand(rows, columns, dtype=torch.float64) for metric in METRICS}
        yield f"{site}.attn.q", "embed", sums


def nbytes(folder: Path) -> int:
    """Bytes of a store."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Write stores and wait for requests."""
    folder, rows, columns = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    shards = [folder / f"shard_{worker}" for worker in range(WORKERS)]
    for worker, shard in enumerate(shards):
        write_store(shard, header(worker, rows, columns), blocks(rows, columns))
    out = folder / "whence"
    case = Case(lambda: merge_stores(shards, out, expected=range(WORKERS)), nbytes)
    serve({"merge": case}, {name: version(name) for name in ("whence", "torch")})


if __name__ == "__main__":
    main()
