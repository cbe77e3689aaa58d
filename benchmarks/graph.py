"""Attribution graphs: whence beside circuit-tracer, on a random Llama with random transcoders.

    .venv/bin/python benchmarks/graph.py [--peer PATH] [--smoke] [--repeats 3] [--threads 1] [--out FILE]

--peer is a checkout of circuit-tracer, or an interpreter that has it. Every row runs in a process of its own, loaded
and warmed up on a short prompt. Rows of one size take turns, so that what else the machine does hits them alike;
numbers are medians. Where there is a GPU, whence alone follows at Gemma 2 2B's shape. README.md explains the columns.
"""

import argparse
import datetime
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

import graph_gpu
from graph_bound import flops
from graph_model import DENSE, LONG, SMALL, TINY, Shape, save_setup
from graph_table import OURS, THEIRS, Measured, Row, Size, bounds, goals, report
from measuring import Worker, machine
from peer import chosen

HERE = Path(__file__).resolve().parent
PEER = "circuit-tracer"
LEFT_OUT = f"{PEER} was not measured: it was left out."


class Bench:
    """Workers for the two sides."""

    def __init__(self, peer: Path | None, threads: int) -> None:
        self.peer, self.threads = peer, threads
        self.versions: dict[str, dict[str, str]] = {}

    def size(self, shape: Shape, repeats: int) -> Size:
        """Every row of one size, in turns."""
        title = f"{shape.length} tokens, {shape.layers} layers, {shape.d_model} wide"
        print(title, file=sys.stderr, flush=True)
        rows = [OURS, *(THEIRS if self.peer is not None else ())]
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            setup = save_setup(shape, Path(name))
            workers = {row: self.worker(row, Path(name), stack) for row in rows}
            found = {row: Measured(row) for row in rows}
            for _ in range(repeats):
                for row, worker in workers.items():
                    found[row].runs.append(worker.ask(row.case))
                    found[row].products.append(worker.ask("gemm"))
            if self.peer is not None:
                compare(found[OURS], workers[OURS], workers[THEIRS[0]], Path(name))
        return Size(title, list(found.values()), int(setup.counts.sum()), flops(shape, setup.counts, setup.counts))

    def worker(self, row: Row, folder: Path, stack: ExitStack) -> Worker:
        """A process for one row."""
        python, program = (sys.executable, "graph_whence.py")
        if row.side == "peer":
            python, program = (str(self.peer), "graph_circuit_tracer.py")
        worker = Worker([python, str(HERE / program), str(folder), str(self.threads)], folder / "workers.log")
        stack.callback(worker.close)
        self.versions[row.side] = worker.versions
        return worker


def compare(ours: Measured, worker: Worker, peer: Worker, folder: Path) -> None:
    """Fill in the largest difference of the two adjacencies."""
    answers = {
        "ours": worker.ask(OURS.case, save=folder / "ours.safetensors"),
        "theirs": peer.ask(THEIRS[0].case, save=folder / "theirs.safetensors"),
    }
    if any("error" in answer for answer in answers.values()):
        return
    graphs = {name: load_file(folder / f"{name}.safetensors") for name in answers}
    assert torch.equal(graphs["ours"]["features"], graphs["theirs"]["features"]), "the sides see other active features"
    a, b = (graphs[name]["adjacency"] for name in answers)
    ours.difference, ours.largest = float((a - b).abs().max()), float(b.abs().max())


def write(path: Path, sizes: list[Size], bench: Bench, gpu: list[graph_gpu.Timed]) -> None:
    """Everything measured, as JSON."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine() | {"threads": bench.threads},
        "versions": bench.versions,
        "sizes": [asdict(size) for size in sizes],
        "gpu": [asdict(one) for one in gpu],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Attribution graphs: whence beside circuit-tracer.")
    parser.add_argument("--peer", type=Path, help="a checkout of circuit-tracer, or an interpreter that has it")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, a peer only if given: does it run?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    options = parser.parse_args(arguments)
    peer = LEFT_OUT if options.smoke and options.peer is None else chosen(PEER, options.peer)
    bench = Bench(peer if isinstance(peer, Path) else None, options.threads)
    sizes = [bench.size(shape, options.repeats) for shape in ((TINY,) if options.smoke else (SMALL, DENSE, LONG))]
    gpu = graph_gpu.timed(smoke=options.smoke, repeats=options.repeats)
    for side, found in bench.versions.items():
        print(f"{side}: {', '.join(f'{name} {value}' for name, value in found.items())}")
    here = ", ".join(f"{name} {value}" for name, value in (machine() | {"threads": options.threads}).items())
    print(f"{here}, {options.repeats} repeats")
    print("\n".join(["", *report(sizes), "", *bounds(sizes), *goals(sizes), *graph_gpu.report(gpu)]))
    if isinstance(peer, str):
        print(peer)
    if options.out is not None:
        write(options.out, sizes, bench, gpu)


if __name__ == "__main__":
    main()
