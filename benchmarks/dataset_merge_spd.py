"""spd's side of dataset_merge.py: a worker. Arguments: a folder, rows and columns of a block, a checkout of spd."""

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dataset_merge import TARGETS, WORKERS
from dataset_spd_stubs import install
from measuring import Case, serve


def write(storage: Any, folder: Path, rows: int, columns: int) -> list[Path]:
    """Files as the peer's workers leave them."""
    files = [folder / f"rank_{worker}.pt" for worker in range(WORKERS)]
    for file in files:
        blocks = [{f"{site}.attn.q": {"embed": torch.rand(rows, columns)} for site in range(TARGETS)} for _ in range(3)]
        storage(*blocks, columns, 0.0, 1, 1).save(file)
    return files


def merge(storage: Any, files: list[Path], out: Path) -> Path:
    """What the peer's merge job does."""
    storage.merge(files).save(out)
    return out


def main() -> None:
    """Write files and wait for requests."""
    folder, rows, columns = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    install(Path(sys.argv[4]), torch.float32)
    storage = import_module("spd.dataset_attributions.storage").DatasetAttributionStorage
    files = write(storage, folder, rows, columns)
    case = Case(lambda: merge(storage, files, folder / "spd.pt"), lambda file: file.stat().st_size)
    serve({"merge": case}, {"torch": version("torch")})


if __name__ == "__main__":
    main()
