import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whence.cli import app
from whence.demo import PROMPT


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
