"""`whence graph`: the attribution graph of a prompt. The options are the library's own arguments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.asking import check_part, part, shares, token_ids, units, warn_of_unknown_words
from whence.cli.console import command_line, one_of, progress_bar, say, stdout
from whence.cli.loading import DEMO, load
from whence.cli.options import (
    MODEL_HELP,
    Device,
    Dtype,
    Gate,
    Json,
    MaxNodes,
    Memory,
    Order,
    Output,
    Position,
    Prompt,
    Prune,
    Revision,
    Rows,
    Targets,
    Units,
)
from whence.cli.show import ROWS, show_graph

if TYPE_CHECKING:
    from whence.results.graph import Graph

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
PLACES, CONVENTIONS = ("cpu", "disk"), ("circuit-tracer",)


def graph(
    prompt: Prompt,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEMO,
    dictionary: Units = None,
    gate: Gate = None,
    targets: Targets = None,
    position: Position = -1,
    max_nodes: MaxNodes = None,
    order: Order = "influence",
    nodes: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A feature to give a row to, such as 2.mlp.feature:17@5; repeat it for more."),
    ] = None,
    parity: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", callback=one_of(*CONVENTIONS), help="Reproduce the conventions of circuit-tracer."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", callback=check_part, help="Solve one part of the rows, the first of four being 0/4."
        ),
    ] = None,
    memory: Memory = None,
    offload: Annotated[
        str | None,
        typer.Option(metavar="WORD", callback=one_of(*PLACES), help="Where the model waits meanwhile: cpu or disk."),
    ] = None,
    prune: Prune = None,
    output: Output = None,
    rows: Rows = ROWS,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Show through which features a prompt led to its next token. Every row sums to the model's own number."""
    from whence.engine.memory import bytes_of
    from whence.methods.graph import attribution_graph

    if shard is not None and (output is None or prune is not None):
        raise typer.BadParameter("a part is merged with the others before it is pruned: it needs -o and no --prune")
    bytes_of(memory)  # what cannot be meant is said before a large model is loaded
    stand_in = units(dictionary, model, gate)
    found = load(model, revision, device, dtype)
    options: dict[str, Any] = {
        "position": position, "max_nodes": max_nodes, "order": order, "nodes": nodes or None, "parity": parity,
        "shard": None if shard is None else part(shard), "memory": memory, "offload": offload,
    }  # fmt: skip
    say("solving the graph's rows")
    with progress_bar() as progress:
        made = attribution_graph(found, stand_in, prompt, token_ids(found, targets), **options, progress=progress)
    warn_of_unknown_words(made.token_texts, found.tokenizer)
    finish(made if prune is None else made.prune(*shares(prune)), output, rows, json)


def finish(made: "Graph", output: Path | None, rows: int, json: bool) -> None:
    """Save, show, and say what to do next."""
    saved = None if output is None else str(made.save(output))
    shard = made.provenance.get("shard") is not None
    if shard and not json:  # what flows to the targets shows once their rows are there
        stdout().print(str(made.certificate), soft_wrap=True, markup=False)
    else:
        show_graph(made, rows, json, saved=saved)
    lines = {"Saved": saved or "nowhere; add -o FOLDER to look further, verify and export"}
    if shard:
        lines["Next"] = f"once all parts are there: {command_line('merge', 'RUN...', '-o', 'RUN')}"
    elif saved is not None:
        lines["Next"] = command_line("verify", saved)
    for name, text in () if json else lines.items():
        stdout().print(f"{name:<9}{text}", soft_wrap=True, markup=False)
