"""Where the command line writes, and how it names itself.

rich keeps to NO_COLOR and writes no colour codes to files and pipes; what is not a terminal gets 100 columns, so that a
table in a file does not depend on the window it was made from.
"""

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from whence.progress import Progress

PIPE_WIDTH = 100


def stdout() -> "Console":
    """Where results go."""
    from rich.console import Console

    return Console(width=_width(sys.stdout), highlight=False)


def stderr() -> "Console":
    """Where progress, warnings and errors go."""
    from rich.console import Console

    return Console(stderr=True, width=_width(sys.stderr), highlight=False)


def say(message: str) -> None:
    """One line of progress."""
    from rich.text import Text

    stderr().print(Text(message, "dim"), soft_wrap=True)


@contextmanager
def progress_bar() -> "Generator[Progress]":
    """What to tell of long work: one bar a stage, with the time left, on a terminal; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("[dim]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        stages: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage)
            bars.update(stages[stage], completed=done, total=total)

        yield report


def print_table(table: "Table") -> None:
    """A table whose heading and note may be wider than its columns."""
    out = stdout()
    heading, note, table.title, table.caption = table.title, table.caption, None, None
    for text in (heading, table, note):
        if text is not None:
            out.print(text, soft_wrap=text is not table)


def print_json(document: Any) -> None:
    """One JSON document on stdout, in ASCII so that no terminal or pipe can damage it."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")


def show_warnings() -> None:
    """Send what the library logs as a warning to stderr."""
    from rich.logging import RichHandler

    logger = logging.getLogger("whence")
    if not logger.handlers:  # once a process, however many commands a test runs in it
        logger.addHandler(RichHandler(logging.WARNING, console=stderr(), show_time=False, show_path=False))


def one_of(*choices: str) -> Callable[[str | None], str | None]:
    """A check for an option that takes one of a few words, or several joined by commas if any has been split so."""

    def check(value: str | None) -> str | None:
        if value is None or value in choices:
            return value
        near = get_close_matches(value, choices, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it is one of {', '.join(choices)}"
        raise typer.BadParameter(f"'{value}' is not known; {hint}")

    return check


def each_of(*choices: str) -> Callable[[str | None], str | None]:
    """A check for an option that takes words joined by commas."""
    check = one_of(*choices)

    def check_each(value: str | None) -> str | None:
        for word in () if value is None else value.split(","):
            check(word)
        return value

    return check_each


def command_line(*arguments: str) -> str:
    """A command that works when pasted into the shell that this one was started from."""
    return " ".join([*_invocation(), *map(shlex.quote, arguments)])


def _invocation() -> Sequence[str]:
    program = Path(sys.argv[0])
    if (program.parent.name, program.name) == ("whence", "__main__.py"):
        return [shlex.quote(sys.executable), "-m", "whence"]
    found = shutil.which("whence")
    if program.stem != "whence" or (found and Path(found).samefile(shutil.which(sys.argv[0]) or found)):
        return ["whence"]
    return [shlex.quote(sys.argv[0])]


def _width(stream: Any) -> int | None:
    return None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
