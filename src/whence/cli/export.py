"""`whence export`: a saved graph as a page, as the JSON of public viewers, or as a table of edges. Loads no model."""

from typing import Annotated

import typer

from whence.cli.console import one_of, stdout
from whence.cli.options import OutputFile, Prune, Run
from whence.cli.show import opened

FORMATS = ("html", "json", "csv")


def export(
    run: Run,
    to: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*FORMATS),
            help="html, a page that opens from disk; json, for public viewers; or csv, one line an edge.",
        ),
    ] = "html",
    prune: Prune = None,
    output: OutputFile = None,
) -> None:
    """Write a saved graph as a file for a browser, a viewer or a spreadsheet."""
    graph = opened(run, prune)
    named = run if run.name else run.absolute()
    path = named.with_name(f"{named.name}.{to}") if output is None else output
    match to:
        case "html":
            graph.to_html(path)
        case "json":
            graph.to_json(path)
        case _:
            graph.to_csv(path)
    stdout().print(str(path), soft_wrap=True, markup=False)
