"""The process that talks to Ray: `python -m whence.cluster.ray_program FOLDER`, started by `on_ray.py`.

    FOLDER/request.json    what to run, and how
    FOLDER/up              made once the cluster has come up
    FOLDER/outcome.json    made at the end: {"failure": text or null}

It is a process of its own so that a cluster that hangs can be ended, with all that it has started, and so that Ray's
signal handlers, environment and messages stay out of the caller's process. Each task runs the shard's command as a
process again, not the shard's function: then a killed or too slow shard can be told from a lost Ray worker, its memory
goes back when it ends, and it is the same command, with the same log, as in the other engines.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whence.cluster.attempt import ShardDied, after_deaths, run_attempt
from whence.cluster.job import Job

_OBJECT_STORE = 80 * 2**20  # bytes; the least that Ray takes, and nothing is put there


def main(folder: Path) -> None:
    """Run what the request asks for, and say how it went.

    Args:
        folder: Where the request is.
    """
    import ray

    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    ray.init(log_to_driver=False, logging_level=logging.WARNING, **_cluster(request))
    (folder / "up").touch()
    try:
        failure = _run([job_of(said) for said in request["jobs"]], request)
    finally:
        ray.shutdown()
    (folder / "outcome.json").write_text(json.dumps({"failure": failure}), encoding="utf-8")


def job_of(said: dict[str, Any]) -> Job:
    """The shard that a request describes.

    Args:
        said: Its fields in JSON's types.
    """
    return Job(said["name"], tuple(said["command"]), Path(said["log"]), Path(said["progress"]), said["windows"])


def _cluster(request: dict[str, Any]) -> dict[str, Any]:
    if request["address"]:
        return {"address": request["address"]}
    return {
        "num_cpus": request["workers"] * request["cpus"],
        "num_gpus": request["workers"] * request["gpus"],
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
        "_temp_dir": request["scratch"],
    }


def _run(jobs: Sequence[Job], request: dict[str, Any]) -> str | None:
    """Why a shard was given up; None once all are finished."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    asked = {"num_cpus": request["cpus"], "num_gpus": request["gpus"]}
    again: dict[str, Any] = {"max_retries": request["retries"], "retry_exceptions": [ShardDied]}
    task = ray.remote(**asked, **again)(run_attempt)
    environment = {"OMP_NUM_THREADS": str(max(1, int(request["cpus"])))}
    pending = [task.remote(job, environment, request["shard_seconds"]) for job in jobs]
    while pending:
        done, pending = ray.wait(pending)
        try:
            ray.get(done)
        except RayTaskError as error:
            died = isinstance(error.cause, ShardDied)
            return f"{error.cause}\n{after_deaths(request['retries'])}" if died else str(error.cause)
        except RayError as error:
            return f"Ray lost a shard: {error}"
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
