"""Dataset attributions: whence beside spd's pull request 413, on a random Llama with random parameter components.

    .venv/bin/python benchmarks/dataset.py [--spd PATH] [--shape "C128 sparse"] [--smoke] [--scaling DIR] [--out FILE]

--spd is a checkout of goodfire-ai/spd at that pull request; without it whence is measured alone. Each side, and each
data type of the peer, is a process of its own, loaded and warmed up. Cases of one size take turns, so that what else
the machine does hits them alike; numbers are medians. README.md explains the columns.
"""

import argparse
import datetime
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dataset_agreement import agreement
from dataset_environment import PEER, environment
from dataset_merge import measure_merges
from dataset_model import SHAPES, save_setup
from dataset_scaling import measure_scaling
from dataset_table import EMBEDDINGS, OURS, ROWS, TYPES, Row, Size, goals, report
from measuring import Worker, machine

HERE = Path(__file__).resolve().parent
LEFT_OUT = f"{PEER} was not measured: it was left out."
COMPARED = {(OURS, "as the peer"): "ours", ("float32", "batch"): "theirs"}
SMALL = 128  # components, up to which slow cases are measured too


class Bench:
    """Workers for the two sides."""

    def __init__(self, peer: tuple[Path, Path] | None, options: argparse.Namespace) -> None:
        self.peer, self.options = peer, options
        self.versions: dict[str, dict[str, str]] = {}

    def size(self, name: str) -> Size:
        """Every case of one size, in turns."""
        print(name, file=sys.stderr, flush=True)
        size = Size(name, SHAPES[name])
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            save_setup(size.shape, Path(folder))
            ours = [row.case for row in cases(size) if row.worker == OURS]
            workers = {side: self.worker(side, Path(folder), ours, stack) for side in self.sides()}
            for turn in range(self.options.repeats):
                for row in (row for row in cases(size) if row.worker in workers and not (row.once and turn)):
                    saved = COMPARED.get((row.worker, row.case)) if turn == 0 else None
                    answer = workers[row.worker].ask(row.case, save=None if saved is None else Path(folder, saved))
                    size.runs.setdefault(row.worker, {}).setdefault(row.case, []).append(answer)
            files = [Path(folder, name) for name in COMPARED.values()]
            if all(file.exists() for file in files):
                size.agreement += agreement(*map(load_file, files))
        return size

    def sides(self) -> list[str]:
        """whence, and the data types of the peer."""
        return [OURS, *(name for name in TYPES if self.peer is not None)]

    def worker(self, side: str, folder: Path, ours: list[str], stack: ExitStack) -> Worker:
        """A process for one side; whence's is told what it will be asked for."""
        threads = str(self.options.threads)
        command = [sys.executable, str(HERE / "dataset_whence.py"), str(folder), threads, *ours]
        if side != OURS:
            assert self.peer is not None
            python, checkout = map(str, self.peer)
            command = [python, str(HERE / "dataset_spd.py"), str(folder), threads, checkout, side]
        worker = Worker(command, folder / "workers.log")
        stack.callback(worker.close)
        self.versions[OURS if side == OURS else PEER] = worker.versions
        return worker


def cases(size: Size) -> list[Row]:
    """What is asked in every turn: slow cases only where they end."""
    small = size.shape.density < 1 and size.shape.components <= SMALL
    found = [row for row in (*ROWS, *EMBEDDINGS) if small or not row.once]
    return [*found, Row("matrix products", OURS, "gemm")]


def write(path: Path, sizes: list[Size], merges: dict[str, Any], bench: Bench) -> None:
    """Everything measured, as JSON."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine() | {"threads": bench.options.threads},
        "versions": bench.versions,
        "sizes": [size.json() for size in sizes],
        "merges": merges,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def tell(size: Size) -> None:
    """Print one size as soon as it is measured: a whole run takes long."""
    agreed = [f"{size.name}, {line}" for line in size.agreement]
    print("\n".join(["", *report([size]), "", *agreed, *goals(size), ""]), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Dataset attributions: whence beside spd's pull request 413.")
    parser.add_argument("--spd", type=Path, help="a checkout of spd at pull request 413")
    known = [name for name in SHAPES if name != "tiny"]
    parser.add_argument("--shape", nargs="+", choices=known, default=known)
    parser.add_argument("--smoke", action="store_true", help="a tiny size, the peer only if given: does it run?")
    parser.add_argument("--scaling", type=Path, help="also plot scaling with components and layers into this folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    options = parser.parse_args(arguments)
    peer = LEFT_OUT if options.smoke and options.spd is None else environment(options.spd)
    bench = Bench(None if isinstance(peer, str) else peer, options)
    here = ", ".join(f"{name} {value}" for name, value in (machine() | {"threads": options.threads}).items())
    print(f"{here}, {options.repeats} repeats")
    sizes: list[Size] = []
    for name in ["tiny"] if options.smoke else options.shape:
        sizes.append(bench.size(name))
        tell(sizes[-1])
    merges = measure_merges(bench.peer, options.repeats, smoke=options.smoke)
    print("\n".join([*merges.report(), ""]), flush=True)
    for side, found in bench.versions.items():
        print(f"{side}: {', '.join(f'{name} {value}' for name, value in found.items())}")
    if options.out is not None:
        write(options.out, sizes, merges.runs, bench)
    if options.scaling is not None:
        for line in measure_scaling(options.scaling, smoke=options.smoke):
            print(line, flush=True)
    if isinstance(peer, str):
        print(peer)


if __name__ == "__main__":
    main()
