import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from whence.cli import app

PROMPT = "The capital of the state containing Dallas is"


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
