"""feature-circuits in an environment of its own: no package, so what it imports is installed and its checkout used.

Versions that its revision of 2025-03-01 runs with; torch is the project's own, so that both sides multiply alike.
"""

import sys
from pathlib import Path

from peer import ROOT, run, torch_pin

PEER = "feature-circuits"
PINS = ("nnsight==0.3.7", "transformers==4.46.3", "dictionary-learning==0.1.0", "numpy<2", "graphviz")
UNWANTED = "torchvision"  # nnsight asks for it, and one that was built for another torch breaks the import


def environment(checkout: Path | None) -> tuple[Path, Path] | str:
    """The interpreter and the checkout; or a sentence saying why there are none.

    Args:
        checkout: the peer's source, or None: that of an earlier run.
    """
    folder = ROOT / "benchmarks" / f".peer-{PEER}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if checkout is None and not stamp.exists():
        return f"{PEER} was not measured: no --peer was given, and no earlier run left an environment for it."
    source = Path(stamp.read_text()) if checkout is None else checkout.resolve()
    if not (source / "attribution.py").exists():
        return f"{PEER} was not measured: {source} has no attribution.py, so it is no checkout of it."
    failure = None if stamp.exists() else made(folder, python)
    if failure is not None:
        return f"{PEER} was not measured: its environment could not be made ({failure})."
    stamp.write_text(str(source))
    return python, source


def made(folder: Path, python: Path) -> str | None:
    """Make the environment: None, or what went wrong."""
    print(f"setting up {PEER} in {folder} (a few minutes, once)", file=sys.stderr)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", torch_pin(), *PINS],
        [*pip, "uninstall", "--quiet", "--yes", UNWANTED],
        [str(python), "-c", "import nnsight, dictionary_learning"],
    )
    return next((failure for failure in map(run, steps) if failure is not None), None)
