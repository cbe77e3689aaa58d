import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whence.cli import app
from whence.cluster.local import processors
from whence.components.importance.given import Ones
from whence.components.parameter_files import load_components, save_components
from whence.components.parameters import ParameterComponents, Part
from whence.demo import PROMPT, components_path

# A few rows of the demo's language.
FEW = ("--data", "demo:8", "--no-pack", "--sequence-length", "16", "--batch-size", "2", "--fold", "1")


@pytest.fixture
def whence() -> Callable[..., Result]:
    """Runs the command line in this process."""
    return lambda *arguments: CliRunner().invoke(app, arguments, prog_name="whence")


@pytest.fixture
def shell() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs it as a program of its own, or other Python where `code` is given."""

    def shell(*arguments: str, code: str | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(("-m", "whence", *arguments) if code is None else ("-c", code, *arguments))]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]

    return shell


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo's graph, with what `whence graph` said beside it in `said.txt`."""
    path = tmp_path_factory.mktemp("runs") / "austin"
    result = CliRunner().invoke(app, ["graph", PROMPT, "--targets", " Austin", "-o", str(path)], prog_name="whence")
    assert result.exit_code == 0, result.stderr
    path.with_name("said.txt").write_text(result.stdout, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's parameter components, cut to two of each matrix: small blocks."""
    parts = {
        part.site: Part(part.site, part.V[:, :2].clone(), part.U[:2].clone())
        for part in load_components(components_path())
    }
    path = tmp_path_factory.mktemp("components") / "two"
    return save_components(path, ParameterComponents(parts, Ones(dict.fromkeys(parts, 2))))


@pytest.fixture(scope="session")
def threads() -> int:
    """Threads of each of two workers: sums in float32 are the same bits where there are as many."""
    return max(1, processors() // 2)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, parts: Path) -> Path:
    """A folder of runs with one that `whence dataset run` computed in two shards; what it said is in `said.txt`."""
    out = tmp_path_factory.mktemp("runs") / "sentences"
    asked = (
        "--components",
        str(parts),
        *FEW,
        "--output-token",
        " sings",
        "-o",
        str(out),
        "--shards",
        "2",
        "--workers",
        "2",
    )
    result = CliRunner().invoke(app, ["dataset", "run", "demo", *asked], prog_name="whence")
    assert result.exit_code == 0, result.stderr
    out.with_name("said.txt").write_text(result.stdout, encoding="utf-8")
    return out
