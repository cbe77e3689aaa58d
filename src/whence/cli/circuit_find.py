"""`whence circuit find`: the circuit of many examples. The options are the library's own arguments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.circuit_asking import PairsAsked, units
from whence.cli.circuit_options import (
    Agreement,
    BatchSize,
    Dictionaries,
    HeldOut,
    Limit,
    Output,
    PairsFile,
    Plot,
    RelativeClauses,
    Seed,
    Slots,
)
from whence.cli.console import command_line, one_of, progress_bar, say, stdout
from whence.cli.loading import DEMO, load
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision, Rows
from whence.cli.show import ROWS
from whence.cli.show_circuit import present
from whence.results.words import counted

if TYPE_CHECKING:
    from whence.results.circuit_data import CircuitData

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
METHODS = ("gradient", "integrated_gradients", "exact")
RULES, BASELINES = ("midpoint", "left"), ("patch", "zero", "mean")
AGGREGATES, GATES = ("sum", "none"), ("aggregate", "per_example")


def find(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEMO,
    dictionary: Dictionaries = None,
    pairs: PairsFile = None,
    agreement: Agreement = None,
    relative_clauses: RelativeClauses = False,
    slots: Slots = None,
    limit: Limit = None,
    seed: Seed = None,
    held_out: HeldOut = False,
    method: Annotated[
        str,
        typer.Option(metavar="WORD", callback=one_of(*METHODS), help=f"How effects are found: {', '.join(METHODS)}."),
    ] = "integrated_gradients",
    steps: Annotated[int, typer.Option(min=1, help="Points of an integral.")] = 10,
    rule: Annotated[
        str, typer.Option(metavar="WORD", callback=one_of(*RULES), help="Where they are: midpoint or left.")
    ] = "midpoint",
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            callback=one_of(*BASELINES),
            help="Where units go: patch, zero or mean; patch if there are patch prompts, else zero.",
        ),
    ] = None,
    aggregate: Annotated[
        str,
        typer.Option(
            metavar="WORD", callback=one_of(*AGGREGATES), help="sum adds positions up; none keeps them, by their names."
        ),
    ] = "sum",
    node_threshold: Annotated[float, typer.Option(min=0, help="What a node's mean effect exceeds in size.")] = 0.1,
    edge_threshold: Annotated[float, typer.Option(min=0, help="What an edge's mean weight exceeds in size.")] = 0.01,
    edges: Annotated[bool, typer.Option("--edges/--no-edges", help="Find edges too.")] = True,
    edge_gradient: Annotated[
        str,
        typer.Option(
            metavar="WORD", callback=one_of(*METHODS[:2]), help=f"How edges are found: {' or '.join(METHODS[:2])}."
        ),
    ] = "gradient",
    gate: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*GATES),
            help="What node thresholds act on: means (aggregate) or each example (per_example).",
        ),
    ] = "aggregate",
    batch_size: BatchSize = 8,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of features, a JSON object a line.")
    ] = None,
    output: Output = None,
    html: Annotated[Path | None, typer.Option(help="Where to write the circuit as a page.")] = None,
    plot: Plot = None,
    rows: Rows = ROWS,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Find the features whose effect on the pairs' answers is large, and the direct edges between them."""
    from whence.methods.circuit import feature_circuit

    asked = PairsAsked(pairs, agreement, relative_clauses, slots, limit, seed, held_out)
    chosen = units(dictionary, model)
    found = load(model, revision, device, dtype)
    options: dict[str, Any] = {
        "method": method, "steps": steps, "rule": rule, "baseline": baseline, "aggregate": aggregate,
        "node_threshold": node_threshold, "edge_threshold": edge_threshold, "edges": edges,
        "edge_gradient": edge_gradient, "gate": gate, "batch_size": batch_size,
    }  # fmt: skip
    examples = asked.read(found)
    say(f"finding effects and edges over {counted(len(examples), 'pair')}")
    with progress_bar() as progress:
        made = feature_circuit(found, chosen, examples, **options, progress=progress)
    made = made if annotations is None else made.annotate(annotations)
    written = _written(made, output, html, plot)
    present(made, rows, json, **{name.lower(): path for name, path in written.items()})
    if not json:
        _close(written, asked)


def _written(made: "CircuitData", output: Path | None, html: Path | None, plot: Path | None) -> dict[str, str | None]:
    """The files that were asked for, once they are there."""
    if plot is not None:
        made.plot(plot)
    return {
        "Saved": None if output is None else str(made.save(output)),
        "Page": None if html is None else str(made.to_html(html)),
        "Picture": None if plot is None else str(plot),
    }


def _close(written: dict[str, str | None], asked: PairsAsked) -> None:
    """Say where the circuit is, and what to do next."""
    saved = written["Saved"]
    lines = written | {"Saved": saved or "nowhere; add -o FOLDER to look further, evaluate and export"}
    if saved is not None:
        lines["Next"] = command_line("circuit", "eval", saved, *asked.arguments())
    for name, text in lines.items():
        if text is not None:
            stdout().print(f"{name:<9}{text}", soft_wrap=True, markup=False)
