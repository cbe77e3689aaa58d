"""Merging shards: the stores of three workers on whence's side, the files of three workers on spd's.

Both hold the same number of blocks of the same shape, random numbers in each: raw sums in float64 here, means in
float32 there. Blocks are those of token embeddings, which are most of what is stored at real sizes.
"""

import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import MB, Worker

HERE = Path(__file__).resolve().parent
WORKERS = 3
TARGETS = 4  # sites
ROWS, COLUMNS = 256, 10_000  # of a block: components, tokens
METRICS = ("attr", "attr_abs", "mean_squared_attr")
HEAD = ("merging three shards", "CPU s", "MB of the merged file", "extra MB", "× block", "× file")


@dataclass
class Merges:
    """Runs by side, and bytes of one array of one block as it is stored: float64 here, float32 there."""

    rows: int = ROWS
    columns: int = COLUMNS
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def report(self) -> list[str]:
        """The table, in Markdown."""
        lines = [f"| {' | '.join(HEAD)} |", f"|---{'|---:' * (len(HEAD) - 1)}|"]
        for side, runs in self.runs.items():
            failed = next((run["error"] for run in runs if "error" in run), None)
            lines.append(f"| {side} | {failed} |{' |' * (len(HEAD) - 2)}" if failed else self._line(side, runs))
        return lines

    def _line(self, side: str, runs: list[dict[str, Any]]) -> str:
        cpu, file = (statistics.median(run[name] for run in runs) for name in ("cpu", "result"))
        cells = [side, f"{cpu:.2f}", f"{file / MB:.0f}"]
        if any(run["extra"] is None for run in runs):
            return f"| {' | '.join([*cells, '–', '', ''])} |"
        extra = statistics.median(run["extra"] for run in runs)
        block = self.rows * self.columns * (4 if side == "spd" else 8)
        return f"| {' | '.join([*cells, f'{extra / MB:.0f}', f'{extra / block:.1f}', f'{extra / file:.2f}'])} |"


def measure_merges(peer: tuple[Path, Path] | None, repeats: int, *, smoke: bool) -> Merges:
    """Both sides in turn.

    Args:
        peer: its interpreter and its checkout, or None.
        repeats: how often.
        smoke: tiny blocks.
    """
    merges = Merges(8, 50) if smoke else Merges()
    size = [str(merges.rows), str(merges.columns)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        commands = {"whence": [sys.executable, str(HERE / "dataset_merge_whence.py"), folder, *size]}
        if peer is not None:
            python, checkout = map(str, peer)
            commands["spd"] = [python, str(HERE / "dataset_merge_spd.py"), folder, *size, checkout]
        workers = {side: Worker(command, log) for side, command in commands.items()}
        for _ in range(repeats):
            for side, worker in workers.items():
                merges.runs.setdefault(side, []).append(worker.ask("merge"))
        for worker in workers.values():
            worker.close()
    return merges
