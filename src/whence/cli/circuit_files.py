"""`whence circuit diff`, `export` and `import`: saved circuits compared, written as other files and read from them."""

from pathlib import Path
from typing import Annotated

import typer

from whence.cli.circuit_options import CutEdges, CutNodes, Output, Run
from whence.cli.console import one_of, stdout
from whence.cli.options import Json, OutputFile, Rows
from whence.cli.show import ROWS
from whence.cli.show_circuit import present

FORMATS = {"html": ".html", "svg": ".svg", "png": ".png", "edges": ".edges.csv", "nodes": ".nodes.csv", "mib": ".json"}


def diff(run: Run, other: Run, output: Output = None, rows: Rows = ROWS, json: Json = False) -> None:
    """Take the second circuit away from the first: what a node or an edge has more of in the first."""
    from whence.results.circuit_data import CircuitData

    found = CircuitData.load(run).diff(CircuitData.load(other))
    saved = None if output is None else str(found.save(output))
    present(found, rows, json, saved=saved)


def export(
    run: Run,
    to: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*FORMATS),
            help="html, a page that opens from disk; svg or png; edges or nodes as a csv; mib, an edge file of MIB's.",
        ),
    ] = "html",
    node_threshold: CutNodes = None,
    edge_threshold: CutEdges = None,
    output: OutputFile = None,
) -> None:
    """Write a saved circuit as a file for a browser, a spreadsheet or a benchmark."""
    from whence.results.circuit_data import CircuitData

    whole = CircuitData.load(run)
    circuit = whole.threshold(node=node_threshold, edge=edge_threshold)
    named = run if run.name else run.absolute()
    path = named.with_name(f"{named.name}{FORMATS[to]}") if output is None else output
    match to:
        case "html":
            circuit.to_html(path)
        case "edges" | "nodes":
            circuit.to_csv(path, to)
        case "mib":
            circuit.to_mib(path, scores=whole)
        case _:
            circuit.plot(path)
    stdout().print(str(path), soft_wrap=True, markup=False)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An edge file of MIB's, in JSON.")],
    output: Output = None,
    selected: Annotated[bool, typer.Option("--selected", help="Only what the file marks as in the circuit.")] = False,
    rows: Rows = ROWS,
    json: Json = False,
) -> None:
    """Read an edge file of MIB's as a circuit, to look at it and to save it."""
    from whence.results.circuit_data import CircuitData

    found = CircuitData.from_mib(file, selected=selected)
    saved = None if output is None else str(found.save(output))
    present(found, rows, json, saved=saved)
