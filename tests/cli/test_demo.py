import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whence.cli import app
from whence.cli.console import command_line

Whence = Callable[..., Result]
NUMBER = r"([+−][\d.]+)"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        found = CliRunner().invoke(app, ["demo"], prog_name="whence")
        assert Path("whence-demo.png").read_bytes().startswith(b"\x89PNG")
        assert "Dallas" in Path("whence-demo.html").read_text()
    return found


def next_command(said: str, name: str = "Next") -> list[str]:
    (line,) = re.findall(rf"^{name} +(.*)$", said, re.MULTILINE)
    return shlex.split(line)


def test_it_answers_what_wrote_austin(result: Result) -> None:
    assert result.exit_code == 0, result.stderr
    assert "The capital of the state containing Dallas is" in result.stdout
    assert "What wrote ' Austin'" in result.stdout
    assert "How to read it:" in result.stdout
    assert re.search(r"\d\.mlp ", result.stdout)
    assert re.search(r"\d\.attn\.head:\d ", result.stdout)


def test_the_ledger_adds_up(result: Result) -> None:
    total = re.search(rf"Σ of the parts +{NUMBER}", result.stdout)
    number = re.search(rf"the model's number +{NUMBER}", result.stdout)
    remainder = re.search(r"remainder +[+−]\d\.\de-0[5-9]", result.stdout)
    assert total is not None
    assert number is not None
    assert total[1] == number[1]
    assert remainder is not None


def test_it_shows_what_the_heads_read(result: Result) -> None:
    assert "' Dallas' +" in result.stdout


def test_progress_is_not_among_the_results(result: Result) -> None:
    assert "loading" in result.stderr
    assert "loading" not in result.stdout


def test_it_ends_with_the_graph_its_verification_and_a_page(result: Result) -> None:
    graph = result.stdout[result.stdout.index("The capital of the state containing Dallas is → Austin") :]
    assert re.search(r"embed:\d+@7  ' Dallas' +0\.mlp\.feature:\d+@7 +\+\d", graph)
    assert re.search(r"3\.mlp\.feature:\d+@8 +output:\d+@8  ' Austin' +\+\d", graph)
    assert re.search(r"\d+ rows add up to \d\.\de-0\d of the size of the parts.*within the bound", graph)
    words = " ".join(graph.split())
    assert re.search(r"Of what began at tokens, most came from ' Dallas' \(\d\d%\) and ' capital' \(\d\d%\)", words)
    assert re.search(r"Removing 32 nodes .* within \de-0[5-9] with attention and norms held", words)
    assert "Page     whence-demo.html" in graph


@pytest.mark.parametrize(
    ("name", "said"), [("Next", "Saved    runs/austin"), ("Or", "What wrote ' Austin' − ' Boston'")]
)
def test_the_next_commands_run(
    result: Result, whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *arguments = next_command(result.stdout, name)
    after = whence(*arguments)
    assert program == "whence"
    assert after.exit_code == 0, after.stderr
    assert said in after.stdout


def test_as_a_program_it_names_itself_so_that_the_next_command_finds_it(tmp_path: Path) -> None:
    # Run as `.venv/bin/whence`, which need not be on the PATH.
    program = Path(sys.executable).with_name("whence")
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 60, "check": True}
    done = subprocess.run([program, "demo", "--plot", "a.svg"], **run)
    assert (tmp_path / "a.svg").exists()
    assert (tmp_path / "a.html").exists()
    assert next_command(done.stdout)[0] == str(program)
    (line,) = re.findall(r"^Or +(.*)$", done.stdout, re.MULTILINE)
    after = subprocess.run(["/bin/sh", "-c", f"{line} --json"], **run)
    # Nothing that transformers or torch print themselves is in it either.
    assert json.loads(after.stdout)["target_labels"] == [["' Austin' − ' Boston'"]]
    assert "loading demo" in after.stderr


def test_without_matplotlib_the_table_is_the_picture(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("whence.cli.demo.has_matplotlib", lambda: False)
    found = whence("demo")
    picture = (tmp_path / "whence-demo.svg").read_text()
    assert (tmp_path / "whence-demo.html").exists()
    assert "whence-demo.svg (for a PNG: pip install 'whence[plot]')" in found.stdout
    assert "3.mlp" in picture
    assert "url(http" not in picture


def test_a_command_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/whence/__main__.py"])
    assert command_line("dla", " a b") == f"{shlex.quote(sys.executable)} -m whence dla ' a b'"
