"""spd in an environment of its own: what its harvester imports is installed, and its checkout used where it lies.

Torch, transformers, safetensors and jaxtyping are the project's own, so that both sides multiply alike.
"""

import sys
from pathlib import Path

from peer import ROOT, run

PEER = "spd"
WANTED = ("torch", "transformers", "safetensors", "jaxtyping", "einops", "pydantic<2.12", "numpy", "typing_extensions")


def environment(checkout: Path | None) -> tuple[Path, Path] | str:
    """The interpreter and the checkout; or a sentence saying why there are none.

    Args:
        checkout: the peer's source, or None: it is left out.
    """
    if checkout is None:
        return f"{PEER} was not measured: no --spd was given."
    source = checkout.resolve()
    if not (source / "spd" / "dataset_attributions" / "harvester.py").exists():
        return f"{PEER} was not measured: {source} has no dataset_attributions/harvester.py."
    folder = ROOT / "benchmarks" / f".peer-{PEER}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    failure = None if stamp.exists() else made(folder, python)
    if failure is not None:
        return f"{PEER} was not measured: its environment could not be made ({failure})."
    stamp.touch()
    return python, source


def made(folder: Path, python: Path) -> str | None:
    """Make the environment: None, or what went wrong."""
    print(f"setting up {PEER} in {folder} (a minute or two, once)", file=sys.stderr)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", "-c", str(ROOT / "constraints.txt"), *WANTED],
        [str(python), "-c", "import torch, transformers, einops, pydantic"],
    )
    return next((failure for failure in map(run, steps) if failure is not None), None)
