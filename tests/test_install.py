"""What installing whence asks of a machine."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]


def test_the_floors_are_the_promised_ones(project: dict[str, Any]) -> None:
    floors = dict(re.findall(r"^(\w+)>=([\d.]+)", "\n".join(project["dependencies"]), re.MULTILINE))
    assert project["requires-python"] == ">=3.11"
    assert (floors["torch"], floors["transformers"]) == ("2.6", "5.0")


def test_torch_has_no_ceiling(project: dict[str, Any]) -> None:
    assert "torch>=2.6" in project["dependencies"]


def test_a_plain_install_needs_six_packages(project: dict[str, Any]) -> None:
    assert set(names(project["dependencies"])) == {"torch", "transformers", "safetensors", "jaxtyping", "typer", "rich"}


def test_the_command_is_the_command_line(project: dict[str, Any]) -> None:
    assert project["scripts"] == {"whence": "whence.cli:main"}


def test_constraints_pin_within_the_floors(project: dict[str, Any]) -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = dict(line.split("==") for line in lines)
    assert names(project["dependencies"]) == [name for name in names(project["dependencies"]) if name in pinned]
