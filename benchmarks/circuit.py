"""Sparse feature circuits: whence beside feature-circuits, on a random GPT-NeoX with random autoencoders.

    .venv/bin/python benchmarks/circuit.py [--peer PATH] [--shape small ...] [--kept 8 ...] [--smoke] [--out FILE]

--peer is a checkout of feature-circuits. Every row runs in a process of its own, loaded and warmed up. Rows of one size
take turns, so that what else the machine does hits them alike; numbers are medians. README.md explains the columns.
"""

import argparse
import datetime
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from circuit_agreement import edges_agree, effects_agree
from circuit_bound import edge_flops, effect_flops
from circuit_effects import kept_counts
from circuit_environment import PEER, environment
from circuit_model import SHAPES, Setup, save_setup
from circuit_table import DEFAULT, OURS, PEERS, Size, bounds, counts, goals, report
from measuring import Worker, machine

HERE = Path(__file__).resolve().parent
LEFT_OUT = f"{PEER} was not measured: it was left out."
PAIR_BY_PAIR = PEERS[-1].label


class Bench:
    """Workers for the two sides."""

    def __init__(self, peer: tuple[Path, Path] | None, options: argparse.Namespace) -> None:
        self.peer, self.options = peer, options
        self.versions: dict[str, dict[str, str]] = {}

    def size(self, name: str) -> Size:
        """Every row of one size, in turns."""
        print(name, file=sys.stderr, flush=True)
        shape = SHAPES[name] if self.options.kept is None else replace(SHAPES[name], kept=tuple(self.options.kept))
        size = Size(f"{shape.layers} layers, {shape.d_model} wide, {shape.features} features a site", shape.kept)
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            setup, effects = save_setup(shape, Path(folder))
            count(size, setup, effects)
            workers = {label: self.worker(label, Path(folder), stack) for label in self.labels()}
            for turn in range(self.options.repeats):
                saved = compared(max(shape.kept)) if turn == 0 else {}
                for label, worker in workers.items():
                    runs = size.runs.setdefault(label, {})
                    for case in cases(label, shape.kept):
                        name = saved.get((label, case))
                        runs.setdefault(case, []).append(worker.ask(case, save=name and Path(folder, name)))
            size.agreement += agreement(Path(folder), shape.features)
        return size

    def labels(self) -> list[str]:
        """whence, and the settings of the peer."""
        return [OURS, *(setting.label for setting in PEERS if self.peer is not None)]

    def worker(self, label: str, folder: Path, stack: ExitStack) -> Worker:
        """A process for one side and setting."""
        threads = str(self.options.threads)
        command = [sys.executable, str(HERE / "circuit_whence.py"), str(folder), threads]
        if label != OURS:
            assert self.peer is not None
            python, checkout = map(str, self.peer)
            command = [python, str(HERE / "circuit_feature_circuits.py"), str(folder), threads, checkout, label]
        worker = Worker(command, folder / "workers.log")
        stack.callback(worker.close)
        self.versions[OURS if label == OURS else "peer"] = worker.versions
        return worker


def cases(label: str, kept: tuple[int, ...]) -> list[str]:
    """What a worker is asked for in every turn."""
    if label != OURS:
        return ["effects", *(f"edges {one}" for one in kept)]
    circuits = [f"circuit {method} {one}" for one in kept for method in ("gradient", "midpoint")]
    return ["effects gradient", "effects midpoint", "effects left", *circuits, "gemm"]


def count(size: Size, setup: Setup, effects: dict[str, Tensor]) -> None:
    """Fill in how many nodes are kept, and the operations of the bounds."""
    size.flops["node effects, attribution patching"] = effect_flops(setup.shape)
    size.flops["node effects, 10 steps"] = effect_flops(setup.shape, steps=10)
    for kept, limit in setup.thresholds.items():
        found = kept_counts(effects, limit)
        size.counts[kept] = {site: int(one.sum()) for site, one in found.items()}
        size.flops[f"edges, {kept} kept a site"] = edge_flops(setup.shape, found)


def compared(kept: int) -> dict[tuple[str, str], str]:
    """What is compared: the file that takes it, by worker and case."""
    return {
        (OURS, "effects gradient"): "effects ours",
        (DEFAULT, "effects"): "effects theirs",
        (OURS, f"circuit gradient {kept}"): "edges ours",
        (PAIR_BY_PAIR, f"edges {kept}"): "edges theirs",
    }


def agreement(folder: Path, features: int) -> list[str]:
    """How far the two sides' numbers agree where they mean the same, a sentence each; none if one is missing."""
    lines: list[str] = []
    for name, compare in (("effects", effects_agree), ("edges", edges_agree)):
        files = [folder / f"{name} {side}" for side in ("ours", "theirs")]
        if all(file.exists() for file in files):
            lines += compare(*map(load_file, files), features)
    return lines


def write(path: Path, sizes: list[Size], bench: Bench) -> None:
    """Everything measured, as JSON."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine() | {"threads": bench.options.threads},
        "versions": bench.versions,
        "sizes": [asdict(size) for size in sizes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Sparse feature circuits: whence beside feature-circuits.")
    parser.add_argument("--peer", type=Path, help="a checkout of feature-circuits")
    parser.add_argument("--shape", nargs="+", choices=[*SHAPES], default=["small", "pythia-70m"])
    parser.add_argument("--kept", nargs="+", type=int, help="nodes a site, in place of the shape's own")
    parser.add_argument("--smoke", action="store_true", help="a tiny size, the peer only if given: does it run?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write everything measured as JSON")
    options = parser.parse_args(arguments)
    peer = LEFT_OUT if options.smoke and options.peer is None else environment(options.peer)
    bench = Bench(None if isinstance(peer, str) else peer, options)
    sizes = [bench.size(name) for name in (["tiny"] if options.smoke else options.shape)]
    for side, found in bench.versions.items():
        print(f"{side}: {', '.join(f'{name} {value}' for name, value in found.items())}")
    here = ", ".join(f"{name} {value}" for name, value in (machine() | {"threads": options.threads}).items())
    print(f"{here}, {options.repeats} repeats")
    lines = [line for size in sizes for line in [*counts(size), *bounds(size), *size.agreement]]
    print("\n".join(["", *report(sizes), "", *lines, *goals(sizes)]))
    if isinstance(peer, str):
        print(peer)
    if options.out is not None:
        write(options.out, sizes, bench)


if __name__ == "__main__":
    main()
