"""Which exceptions are a user's mistake, to be said in one sentence, and which are bugs, to be shown with a traceback.

An exception that whence raised with a `raise` of its own is meant for the user: its message is the sentence. One that
escapes from elsewhere (torch, transformers, an indexing mistake of ours) is a bug, and only its traceback helps.
"""

import dis
import errno
import re
import sys
from types import TracebackType
from typing import Any, Never

import typer
from typer.core import TyperGroup

from whence.cli.console import stderr
from whence.errors import WhenceError

MISTAKE, INTERRUPTED = 2, 130
_UsageError = typer.BadParameter.__base__  # typer exports no other name for what a wrong command line raises
_RAISE = dis.opmap["RAISE_VARARGS"]


class Commands(TyperGroup):
    """The commands, with whence's way of ending: it holds however the app is called, in tests too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without a command, help is what is wanted."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **extra: Any) -> Never:
        """Run one command and leave with its exit code."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
            sys.stdout.flush()  # a pipe that was closed shows here, not while Python shuts down
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            fail(sentence)
        sys.exit(code if isinstance(code, int) else 0)


def fail(sentence: str) -> Never:
    """Say what is wrong on stderr and leave with exit code 2."""
    stderr().print("[bold red]error:[/]", _plain(sentence), soft_wrap=True)
    sys.exit(MISTAKE)


def sentence_of(error: Exception) -> str | None:
    """What to tell the user; None for a bug."""
    if _UsageError is not None and isinstance(error, _UsageError):
        return _usage(error)
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, WhenceError) or raised_on_purpose(error):
        return str(error.args[0]) if isinstance(error, KeyError) else str(error)  # whose str is quoted
    return None


def raised_on_purpose(error: Exception) -> bool:
    """Whether a `raise` statement in whence's own code threw it."""
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    return trace.tb_frame.f_globals.get("__name__", "").startswith("whence.") and code[trace.tb_lasti] == _RAISE


def _usage(error: Any) -> str:
    """A wrong command line, in a sentence with the nearest right one."""
    command = error.ctx.command_path if error.ctx is not None else "whence"
    message = re.sub(r"\.? \(Possible options: (.+)\)", r"; did you mean \1?", error.format_message()).rstrip(".")
    return f"{message}{'' if message.endswith('?') else '.'} See {command} --help."


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
