"""Measure calls in processes of their own: processor seconds, and how far memory rises above what was resident.

A worker is a Python process that holds a model and waits; a driver asks several in turn, so that what else the machine
does hits all of them alike. Processor time counts all threads of the process, and no waiting. Memory is the kernel's
high-water mark, set back before each call (Linux; elsewhere memory is not measured). Needs an interpreter with torch.
"""

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "measured: "  # what a worker's answers start with; anything else on its stdout is not ours
MB = 1e6


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Args:
        run: the call.
        size: bytes of what it returned, which are the caller's and not its cost.
        compared: tensors by name that another program should agree on.
    """

    run: Callable[[], Any]
    size: Callable[[Any], int]
    compared: Callable[[Any], dict[str, Any]] = field(default=lambda _: {})


def measure(case: Case) -> tuple[dict[str, Any], Any]:
    """CPU seconds, extra peak bytes (None where the kernel does not say) and result bytes of one call; its result."""
    gc.collect()
    _give_back()
    before = _status("VmRSS")
    _reset_peak()
    start = time.process_time()
    result = case.run()
    seconds = time.process_time() - start
    peak = _status("VmHWM")
    extra = None if before is None or peak is None else peak - before
    return {"cpu": seconds, "extra": extra, "result": case.size(result)}, result


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _reset_peak() -> None:
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _give_back() -> None:
    """Let the allocator return what it hoards, so that a call pays for the memory it uses."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


# ------------------------------------------------------------ workers
def serve(cases: Mapping[str, Case], versions: Mapping[str, str]) -> None:
    """Answer requests for cases, one JSON line each, until stdin closes."""
    from safetensors.torch import save_file

    _answer({"versions": dict(versions)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            numbers, result = measure(cases[request["case"]])
            if request["save"]:
                tensors = cases[request["case"]].compared(result)
                save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, request["save"])
            del result
        except Exception as error:  # noqa: BLE001  # whatever the measured program raises is a row of the table
            traceback.print_exc()
            numbers = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        _answer(numbers)


def _answer(value: Mapping[str, Any]) -> None:
    print(MARK + json.dumps(value), flush=True)


class Worker:
    """A process that serves cases.

    Args:
        command: interpreter, program and arguments.
        log: takes its stderr.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = os.environ | threads | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self.versions: dict[str, str] = self._read()["versions"]

    def ask(self, case: str, save: Path | None = None) -> dict[str, Any]:
        """One measured call; `save` takes the compared tensors."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"case": case, "save": save and str(save)}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process, which does so when there is no more to read."""
        self.process.communicate(timeout=60)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"a worker ended without an answer:\n{self.log.read_text()[-3000:]}")


# ------------------------------------------------------------ the machine
def machine() -> dict[str, str | int]:
    """What the numbers depend on besides the programs."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count() or 1, "system": platform.system(), "threads": 1}


def speed() -> dict[str, float]:
    """What one thread of this machine can do: float32 matrix-product FLOP/s, and bytes read per second."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    stream = torch.randn(64 * 2**20 // 4)
    return {
        "flops": 2 * 1024**3 / _fastest(lambda: a @ a),
        "bytes": stream.nbytes / _fastest(lambda: stream.sum()),
    }


def _fastest(call: Callable[[], Any], repeats: int = 15) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)
