"""Edge attribution patching: whence beside TransformerLens, on a random model of GPT-2 small's shape.

    .venv/bin/python benchmarks/edge_attribution.py [--smoke] [--no-peer] [--repeats 5] [--out FILE]

Each side is a process of its own with one thread, its model loaded and run once. Cases take turns, so that what else
the machine does hits them alike; numbers are medians. See README.md for what the columns mean.
"""

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from dla_model import SMALL, TINY, save_model
from measuring import MB, Worker, machine
from peer import set_up

HERE = Path(__file__).resolve().parent
PEER = "transformer-lens"
OURS = (("forward", "plain forward, all logits"), ("edges", "whence"), ("edges, 5 points", "whence, 5 points"))
THEIRS = (("forward", "TransformerLens, forward"), ("best", "TransformerLens, best"))
DEFAULT = ("default", "TransformerLens, default")  # measured once: it takes minutes
PROMPTS = ((8, 16), (8, 64))  # how many, of how many tokens

Runs = dict[str, list[dict[str, Any]]]


def measure(folder: Path, peer: Path | None, repeats: int, *, default: bool) -> tuple[Runs, float | None]:
    """Runs by label, and the largest difference between the sides as a share of the largest score."""
    ours = Worker([sys.executable, str(HERE / "edge_attribution_whence.py"), str(folder)], folder / "log")
    command = [str(peer), str(HERE / "edge_attribution_transformer_lens.py"), str(folder)]
    theirs = None if peer is None else Worker(command, folder / "log")
    cases = [(ours, *case) for case in OURS] + [(theirs, *case) for case in THEIRS if theirs is not None]
    runs: Runs = {}
    for _ in range(repeats):
        for worker, case, label in cases:
            runs.setdefault(label, []).append(worker.ask(case))
    difference = None
    if theirs is not None:
        if default:
            runs[DEFAULT[1]] = [theirs.ask(DEFAULT[0])]
        difference = compared(folder, ours, theirs)
        theirs.close()
    ours.close()
    return runs, difference


def compared(folder: Path, ours: Worker, theirs: Worker) -> float:
    """How far apart the scores are."""
    from safetensors.torch import load_file

    ours.ask("edges", save=folder / "ours.safetensors")
    theirs.ask("best", save=folder / "theirs.safetensors")
    here, there = (load_file(folder / f"{side}.safetensors") for side in ("ours", "theirs"))
    largest = max(float(row.abs().max()) for row in there.values())
    return max(float((here[key] - row).abs().max()) for key, row in there.items()) / largest


def table(runs: Runs, difference: float | None) -> list[str]:
    """A line a case."""
    middle = {
        label: {name: statistics.median(run[name] for run in found) for name in ("cpu", "extra", "result")}
        for label, found in runs.items()
        if not any("error" in run for run in found)
    }
    lines = ["| case | CPU s | × forward | extra MB | × whence: CPU | memory |", "|---|---:|---:|---:|---:|---:|"]
    base, own = middle[OURS[0][1]], middle[OURS[1][1]]
    for label in runs:
        if label not in middle:
            lines.append(f"| {label} | {next(run['error'] for run in runs[label] if 'error' in run)} | | | | |")
            continue
        one = middle[label]
        ratios = (one["cpu"] / own["cpu"], max(0, one["extra"] - one["result"]) / max(1, own["extra"] - own["result"]))
        shown = "{:.1f} | {:.1f}".format(*ratios) if label.startswith("TransformerLens, ") else " | "
        lines.append(
            f"| {label} | {one['cpu']:.2f} | {one['cpu'] / base['cpu']:.1f} | {one['extra'] / MB:.0f} | {shown} |"
        )
    if difference is not None:
        lines.append(f"\nlargest difference of a score, as a share of the largest score: {difference:.0e}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Edge attribution patching: whence beside TransformerLens.")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, no peer, two repeats: does it run?")
    parser.add_argument("--no-peer", action="store_true", help="whence alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="write everything measured as JSON")
    options = parser.parse_args(arguments)
    alone = options.smoke or options.no_peer
    chosen = f"{PEER} was not measured: it was left out." if alone else set_up(PEER)
    shapes = [TINY] if options.smoke else [replace(SMALL, batch=batch, length=length) for batch, length in PROMPTS]
    here = machine() | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    everything: list[dict[str, Any]] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            save_model(shape, Path(folder))
            peer = chosen if isinstance(chosen, Path) else None
            repeats = 2 if options.smoke else options.repeats
            runs, difference = measure(Path(folder), peer, repeats, default=shape.length < SMALL.length)
        print(
            "\n".join(["", f"{shape.batch} prompts of {shape.length} tokens", "", *table(runs, difference)]), flush=True
        )
        everything.append({"batch": shape.batch, "length": shape.length, "runs": runs, "difference": difference})
    if isinstance(chosen, str):
        print(chosen)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": here, "sizes": everything}, indent=1) + "\n")


if __name__ == "__main__":
    main()
