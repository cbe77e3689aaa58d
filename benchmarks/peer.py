"""Another library in an environment of its own, so that the two sides do not have to agree on versions.

The newest release that the registry has when the environment is made, or the checkout that is given; delete the folder
to get a newer one.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def set_up(package: str, command: list[str] | None = None, *, source: Path | None = None) -> Path | str:
    """The interpreter of the package's environment, made if needed; or a sentence saying why there is none.

    Args:
        package: its name in the registry.
        command: how to make a virtual environment; the folder is appended.
        source: a checkout to install instead of a release.
    """
    folder = ROOT / "benchmarks" / f".peer-{package}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = package if source is None else str(source)
    if stamp.exists() and (source is None or stamp.read_text() == str(source)):
        return python
    print(f"setting up {package} in {folder} (a minute or two, once)", file=sys.stderr)
    made = run([*(command or [sys.executable, "-m", "venv"]), str(folder)])
    if made is not None:
        return f"{package} was not measured: its environment could not be made ({made})."
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    failure = run([*pip, "-c", str(ROOT / "constraints.txt"), wanted])
    if failure is not None:  # it may want another transformers than ours: then torch alone stays as it is
        failure = run([*pip, wanted, torch_pin()])
    if failure is not None:
        return f"{package} was not measured: it could not be installed ({failure})."
    found = given(package, python)
    if isinstance(found, Path):
        stamp.write_text("" if source is None else str(source))
    return found


def given(package: str, python: Path) -> Path | str:
    """An interpreter that can import the package; or a sentence saying why it cannot."""
    failure = run([str(python), "-c", f"import {package.replace('-', '_')}"])
    if failure is not None:
        return f"{package} was not measured: {python.name} cannot import it ({failure})."
    return python


def chosen(package: str, path: Path | None) -> Path | str:
    """The interpreter for a package that no registry has.

    Args:
        package: its name.
        path: an interpreter that has it, a checkout of its source to install in an environment here, or None: the
            environment of an earlier run.
    """
    if path is not None and not path.is_dir():
        return given(package, path)
    if path is None and not (ROOT / "benchmarks" / f".peer-{package}" / ".installed").exists():
        return f"{package} was not measured: no --peer was given, and no earlier run left an environment for it."
    return set_up(package, source=None if path is None else path.resolve())


def torch_pin() -> str:
    """The project's own torch, as pip wants it."""
    return next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def run(command: list[str]) -> str | None:
    """None, or the last line of what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
