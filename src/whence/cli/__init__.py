"""The command line: results on stdout, everything else on stderr, mistakes in one sentence with exit code 2.

Each command imports what it needs when it runs, so `whence --help` and `whence --version` load no torch.
"""

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from whence.cli import (
    check,
    circuit,
    dataset,
    demo,
    dictionary,
    dla,
    export,
    graph,
    intervene,
    merge,
    models,
    plan,
    show,
    verify,
)
from whence.cli.errors import Commands

app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)
app.command("dla")(dla.dla)
app.command("graph")(graph.graph)
app.command("plan")(plan.plan)
app.command("merge")(merge.merge)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("export")(export.export)
app.command("intervene")(intervene.intervene)
app.command("demo")(demo.demo)
app.command("models")(models.models)
app.command("check")(check.check)
app.add_typer(circuit.app, name="circuit")
app.add_typer(dataset.app, name="dataset")
app.add_typer(dictionary.app, name="dictionary")


def _show_version(wanted: bool) -> bool:
    if wanted:
        others = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        typer.echo(f"whence {version('whence')} ({others}, Python {sys.version.split()[0]})")
        raise typer.Exit
    return wanted


@app.callback()
def whence(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version of whence and leave."),
    ] = False,
) -> None:
    """Where did this output come from? Attribution for Hugging Face language models, in rows that add up.

    Start with: whence demo
    """


def main() -> None:
    """Run the command line of this process, and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without the character for a bar still gets the numbers
            stream.reconfigure(errors="replace")
    # Threads that wait for one another by spinning make a busy machine ten times slower; torch reads this when loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except BrokenPipeError:  # the reader has left (`| head`), and what Python would flush at its end has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
