"""The one shard of a plan, in processes that are killed: `python dataset_killed.py RUN KILLS SEED`.

Each process is forked from this one, which has model and components in memory, and killed with SIGKILL at a random
moment: while it wires up, or some time after its first window. After each kill the shard's store opens, if there is
one. A last process runs to its end. Prints how many windows were in the store after each kill.
"""

import os
import random
import signal
import sys
import time

from dataset_runs import given, model
from whence.methods.dataset_plan import DatasetPlan, read_plan
from whence.methods.dataset_shard import run_shard
from whence.results.dataset_store import open_store


def started(plan: DatasetPlan) -> tuple[int, int]:
    """A process that flushes after every window: its id, and a pipe into which it writes a byte a window."""
    ends = os.pipe()
    child = os.fork()
    if child == 0:
        run_shard(plan, model(), given(), flush_seconds=0.0, progress=lambda *_: os.write(ends[1], b"."))
        os._exit(0)
    os.close(ends[1])
    return child, ends[0]


def killed(plan: DatasetPlan, wait: float, at_once: bool) -> None:
    """Start a process, and kill it so long after its start or its first window."""
    child, pipe = started(plan)
    if not at_once:
        os.read(pipe, 1)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(pipe)


def main(run: str, kills: str, seed: str) -> None:
    """Kill so many times, then finish."""
    plan, chance = read_plan(run), random.Random(int(seed))
    folder = plan.shard_folder(0, 1)
    model(), given()
    for number in range(int(kills)):
        killed(plan, chance.uniform(0, 0.15), at_once=number % 5 == 0)
        windows = len(open_store(folder).header.windows) if (folder / "result.json").exists() else 0
        os.write(1, f"{windows}\n".encode())
    child, pipe = started(plan)
    assert os.waitpid(child, 0)[1] == 0
    os.close(pipe)


if __name__ == "__main__":
    main(*sys.argv[1:])
