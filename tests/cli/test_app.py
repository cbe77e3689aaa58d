import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import Result

from whence.cli import app

Whence = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = {"torch", "transformers", "matplotlib"}
GRAPHS = ("graph", "plan", "merge", "show", "verify", "export", "intervene")
COMMANDS = ("dla", *GRAPHS, "demo", "models", "check", "circuit", "dataset", "dictionary")
# Runs the arguments and then says on stderr which heavy packages that has loaded.
SPY = f"import atexit, sys; atexit.register(lambda: print('loaded', {HEAVY!r} & set(sys.modules), file=sys.stderr))\n"
SPY += "from whence.cli import main; main()"


def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("dla", "--help"),
        ("graph", "--help"),
        ("circuit", "find", "--help"),
        ("dataset", "run", "--help"),
        ("models",),
    ],
)
def test_what_needs_no_model_loads_no_torch(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments, code=SPY)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == "loaded set()\n"


def test_the_version_is_that_of_the_package(whence: Whence) -> None:
    from importlib.metadata import version

    result = whence("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"whence {version('whence')} (torch {version('torch')}, ")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(whence: Whence, arguments: tuple[str, ...]) -> None:
    result = whence(*arguments)
    assert result.exit_code == 0
    assert all(f" {name} " in result.stdout for name in COMMANDS)


def test_there_are_no_other_commands() -> None:
    assert tuple(commands()) == COMMANDS


@pytest.mark.parametrize("name", [*COMMANDS, "dictionary info"])
def test_the_help_of_every_command_can_be_shown(whence: Whence, name: str) -> None:
    result = whence(*name.split(), "--help")
    assert result.exit_code == 0, result.exception
    assert f"Usage: whence {name}" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert [option.name for option in command.params if not option.help] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dlaa",), "Did you mean 'dla'? See whence --help."),
        (("dla", "x", "--targt", "y"), "did you mean --target? See whence dla --help."),
        (("dla", "x", "--by", "hed"), "'hed' is not known; did you mean 'head'?"),
        (("dla", "x", "--by", "head,neurons"), "'neurons' is not known; did you mean 'neuron'?"),
        (("dla", "x", "--bias", "without"), "'without' is not known; it is one of separate, exclude."),
        (("dla", "x", "--dtype", "float31"), "did you mean 'float32'?"),
        (("dla", "x", "--position", "last"), "'last' is no position; give an integer (-1 is the last token) or all."),
        (("dla", "x", "--top", "0"), "Invalid value for '--top': "),
        (("dla", "x", "--plot", "a.bmp"), "'a.bmp' does not end in .png, .svg, .pdf."),
        (("dla", "x", "--plot", "nowhere/a.png"), "there is no folder 'nowhere'."),
        (("dla", "x", "--by", "feature"), "it needs --dictionary FOLDER."),
        (("dla",), "Missing argument 'PROMPT"),
        (("check",), "Missing argument 'MODEL'."),
    ],
)
def test_a_wrong_command_line_is_one_sentence_on_stderr(whence: Whence, arguments: tuple[str, ...], said: str) -> None:
    result = whence(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_a_reader_that_leaves_early_gets_no_traceback(flag: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "whence", "models", *flag]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_interrupting_ends_with_130_and_no_traceback() -> None:
    code = (
        "import sys, time, whence.cli.check as check\n"
        "check.load = lambda *_: print('ready', flush=True) or time.sleep(60)\n"
        "from whence.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "check", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == ""


@pytest.mark.parametrize(
    ("settings", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_is_for_terminals_and_for_those_who_want_it(
    shell: Shell, settings: dict[str, str], coloured: bool
) -> None:
    quiet = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    done = shell("dla", "--targt", env=quiet | settings)
    assert done.returncode == 2
    assert ("\x1b[1;31m" in done.stderr or "\x1b[31m" in done.stderr) is coloured


def test_a_pipe_gets_lines_of_at_most_a_hundred_characters(shell: Shell) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = shell("models", env=kept)
    assert "\x1b" not in done.stdout
    assert 60 < max(map(len, done.stdout.splitlines())) <= 100


def test_an_output_that_knows_no_unicode_still_gets_the_table(shell: Shell) -> None:
    done = shell("models", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "gpt2" in done.stdout
