"""Another library in an environment of its own, so that the two sides do not have to agree on versions.

The newest release that the registry has when the environment is made; delete the folder to get a newer one.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def set_up(package: str, command: list[str] | None = None) -> Path | str:
    """The interpreter of the package's environment, made if needed; or a sentence saying why there is none.

    Args:
        package: its name in the registry.
        command: how to make a virtual environment; the folder is appended.
    """
    folder = ROOT / "benchmarks" / f".peer-{package}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if stamp.exists():
        return python
    print(f"setting up {package} in {folder} (a minute or two, once)", file=sys.stderr)
    made = _run([*(command or [sys.executable, "-m", "venv"]), str(folder)])
    if made is not None:
        return f"{package} was not measured: its environment could not be made ({made})."
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    failure = _run([*pip, "-c", str(ROOT / "constraints.txt"), package])
    if failure is not None:  # it may want another transformers than ours: then torch alone stays as it is
        torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
        failure = _run([*pip, package, torch])
    if failure is not None:
        return f"{package} was not measured: it could not be installed ({failure})."
    failure = _run([str(python), "-c", f"import {package.replace('-', '_')}"])
    if failure is not None:
        return f"{package} was not measured: it is installed but cannot be imported ({failure})."
    stamp.touch()
    return python


def _run(command: list[str]) -> str | None:
    """None, or the last line of what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
