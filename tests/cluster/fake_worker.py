"""A shard's worker without a model: fake_worker.py STATE PROGRESS WINDOWS and options.

Each window adds a line to STATE and says so in PROGRESS; a worker that is started again goes on after the last line.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from whence.results.shard_progress import ShardProgress, write_progress


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("progress", type=Path)
    parser.add_argument("windows", type=int)
    parser.add_argument("--crash-at", type=int, help="exit with status 3 before this window, the first time or always")
    parser.add_argument("--always", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0, help="time that a window takes")
    given = parser.parse_args()
    given.state.parent.mkdir(parents=True, exist_ok=True)
    done = len(given.state.read_text().splitlines()) if given.state.exists() else 0
    threads = os.environ.get("OMP_NUM_THREADS")
    sys.stdout.write(f"begins at window {done} with {threads} threads on {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    sys.stdout.flush()
    for window in range(done, given.windows):
        crashed = given.state.with_suffix(".crashed")
        if window == given.crash_at and (given.always or not crashed.exists()):
            crashed.touch()
            sys.exit("the worker crashes")
        time.sleep(given.seconds)
        with given.state.open("a") as state:
            state.write(f"window {window}\n")
        progress = ShardProgress(window + 1, given.windows, 10 * (window + 1), 0.1, 2**20, window + 1 == given.windows)
        write_progress(given.progress, progress)


if __name__ == "__main__":
    main()
