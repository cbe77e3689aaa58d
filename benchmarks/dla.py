"""Direct logit attribution: whence beside TransformerLens, on a random model of GPT-2 small's shape.

    .venv/bin/python benchmarks/dla.py [--smoke] [--no-peer] [--repeats 5] [--out benchmarks/results/dla.json]

Every case runs in a process of its own with one thread, its model loaded and run once. Cases of one group take turns,
so that what else the machine does hits them alike; numbers are medians. See README.md for what the columns mean.
"""

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dla_model import SMALL, TINY, save_model
from dla_table import Measured, Row, bounds, forward, goals, report
from measuring import Worker, machine, speed
from peer import set_up

HERE = Path(__file__).resolve().parent
PEER = "transformer-lens"


def group(unit: str, where: str, attentions: tuple[str, ...] = ("sdpa",)) -> list[Row]:
    """One granularity at one place, on both sides; the first row of whence is the one compared."""
    case = f"{unit} {where}"
    ours = [Row(f"whence, {attention}", "whence", attention, case, compared=True) for attention in attentions]
    if unit == "head+neuron":
        ours.append(Row(f"whence, {attentions[0]}, a pair per prompt", "whence", attentions[0], f"{case} own pairs"))
    theirs = [Row(f"TransformerLens, {how}", "peer", "eager", f"{case} {how}") for how in ("default", "best")]
    return [*(forward(kernel) for kernel in ("sdpa", "eager")), *ours, *theirs]


GROUPS: dict[str, list[Row]] = {
    "nothing attributed": [
        forward("sdpa"),
        forward("eager"),
        Row("TransformerLens, forward", "peer", "eager", "forward"),
    ],
    "components, last position": group("component", "last"),
    "heads, last position": group("head", "last"),
    "heads, all positions": group("head", "all"),
    "heads and neurons, last position": group("head+neuron", "last"),
    "heads and neurons, all positions": group("head+neuron", "all", ("sdpa", "eager")),
}


# ------------------------------------------------------------ measuring
class Bench:
    """Workers for the two sides."""

    def __init__(self, folder: Path, peer: Path | None, *, one_process: bool) -> None:
        self.folder, self.peer, self.one_process = folder, peer, one_process
        self.versions: dict[str, dict[str, str]] = {}

    def command(self, row: Row) -> list[str]:
        """How a row's worker is started."""
        if row.side == "whence":
            return [sys.executable, str(HERE / "dla_whence.py"), str(self.folder), row.attention]
        setting = row.case.rpartition(" ")[2]
        return [str(self.peer), str(HERE / "dla_transformer_lens.py"), str(self.folder), setting]

    @contextmanager
    def workers(self, rows: list[Row]) -> Iterator[dict[Row, Worker]]:
        """A process a row; in a smoke run one for all rows that can share one."""
        with ExitStack() as stack:
            started: dict[Any, Worker] = {}
            for row in rows:
                shared = (row.side, row.attention) if self.one_process else row
                if shared not in started:
                    started[shared] = Worker(self.command(row), self.folder / "workers.log")
                    stack.callback(started[shared].close)
                    self.versions[row.side] = started[shared].versions
            yield {row: started[(row.side, row.attention) if self.one_process else row] for row in rows}

    def measure(self, rows: list[Row], repeats: int) -> list[Measured]:
        """Every row, in turns."""
        rows = [row for row in rows if row.side == "whence" or self.peer is not None]
        found = {row: Measured(row) for row in rows}
        with self.workers(rows) as workers:
            for _ in range(repeats):
                for row in rows:
                    found[row].runs.append(workers[row].ask(row.case))
            self.compare(found, workers)
        return list(found.values())

    def compare(self, found: dict[Row, Measured], workers: dict[Row, Worker]) -> None:
        """Fill in agreement: whence against the peer's best."""
        from safetensors.torch import load_file

        best = next((row for row in found if row.side == "peer" and row.case.endswith("best")), None)
        if best is None or found[best].error:
            return
        workers[best].ask(best.case, save=self.folder / "peer.safetensors")
        theirs = load_file(self.folder / "peer.safetensors")
        for row in (row for row in found if row.compared and not found[row].error):
            workers[row].ask(row.case, save=self.folder / "ours.safetensors")
            ours = load_file(self.folder / "ours.safetensors")
            different = [
                (ours[name] - theirs[name].reshape(ours[name].shape)).abs().max() for name in theirs.keys() & ours
            ]
            found[row].agreement = float(max(different))


def all_groups(bench: Bench, repeats: int) -> dict[str, list[Measured]]:
    """Each group's processes are gone before the next one's start."""
    groups: dict[str, list[Measured]] = {}
    for title, rows in GROUPS.items():
        print(title, file=sys.stderr, flush=True)
        groups[title] = bench.measure(rows, repeats)
    return groups


def smoke_groups(bench: Bench, repeats: int) -> dict[str, list[Measured]]:
    """Every row once, in as few processes as will do."""
    everything = bench.measure(list(dict.fromkeys(row for rows in GROUPS.values() for row in rows)), repeats)
    return {title: [one for one in everything if one.row in rows] for title, rows in GROUPS.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Direct logit attribution: whence beside TransformerLens.")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, no peer, two repeats: does it run?")
    parser.add_argument("--no-peer", action="store_true", help="whence alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="write everything measured as JSON")
    options = parser.parse_args(arguments)
    shape, repeats = (TINY, 2) if options.smoke else (SMALL, options.repeats)
    chosen = set_up(PEER) if not (options.smoke or options.no_peer) else f"{PEER} was not measured: it was left out."
    with tempfile.TemporaryDirectory() as folder:
        save_model(shape, Path(folder))
        peer = chosen if isinstance(chosen, Path) else None
        bench = Bench(Path(folder), peer, one_process=options.smoke)
        groups = smoke_groups(bench, repeats) if options.smoke else all_groups(bench, repeats)
    fast, here = speed(), machine() | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    print(
        "\n".join(
            f"{side}: {', '.join(f'{k} {v}' for k, v in found.items())}" for side, found in bench.versions.items()
        )
    )
    print(", ".join(f"{name} {value}" for name, value in here.items()) + f", {repeats} repeats")
    print("\n".join(["", *report(groups), "", *bounds(shape, fast), *([] if options.smoke else goals(groups))]))
    if isinstance(chosen, str):
        print(chosen)
    if options.out is not None:
        rows = [
            {"group": title, "case": one.row.label, "runs": one.runs, "agreement": one.agreement}
            for title, found in groups.items()
            for one in found
        ]
        everything = {"machine": here, "speed": fast, "versions": bench.versions, "repeats": repeats, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
