"""`whence merge`: the parts of a graph that were solved apart, put together."""

from pathlib import Path
from typing import Annotated

import typer

from whence.cli.asking import check_output
from whence.cli.graph import finish
from whence.cli.options import Json, Rows
from whence.cli.show import ROWS, opened


def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of all the parts, saved by `whence graph --shard`.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=check_output, help="The folder to save the whole graph in.")
    ],
    rows: Rows = ROWS,
    json: Json = False,
) -> None:
    """Put the parts of a graph together that `whence graph --shard I/N` solved apart."""
    from whence.results.graph import Graph

    finish(Graph.merge([opened(run, None) for run in runs]), output, rows, json)
