"""`whence circuit eval`: does the circuit alone do what the model does? Runs the model with all else ablated."""

from typing import Annotated, Any

import typer

from whence.cli.circuit_asking import PairsAsked, check_numbers, numbers, recorded_units
from whence.cli.circuit_options import (
    Agreement,
    BatchSize,
    CutEdges,
    CutNodes,
    Dictionaries,
    HeldOut,
    Limit,
    PairsFile,
    Plot,
    RelativeClauses,
    Run,
    Seed,
    Slots,
)
from whence.cli.circuit_scores import show_scores, show_sweep
from whence.cli.console import one_of, progress_bar, say
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision
from whence.cli.recorded import recorded_model
from whence.results.words import counted

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
ABLATIONS, ERRORS = ("mean", "zero", "resample"), ("default", "keep", "remove")
EMBEDDINGS = ("keep", "default")


def evaluate(
    run: Run,
    model: Annotated[str | None, typer.Option(help=f"{MODEL_HELP} The circuit's own if not given.")] = None,
    dictionary: Dictionaries = None,
    pairs: PairsFile = None,
    agreement: Agreement = None,
    relative_clauses: RelativeClauses = False,
    slots: Slots = None,
    limit: Limit = None,
    seed: Seed = None,
    held_out: HeldOut = False,
    node_threshold: CutNodes = None,
    edge_threshold: CutEdges = None,
    ablation: Annotated[
        str,
        typer.Option(
            metavar="WORD", callback=one_of(*ABLATIONS), help=f"What is put for the rest: {', '.join(ABLATIONS)}."
        ),
    ] = "mean",
    errors: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*ERRORS),
            help="Errors are nodes like others (default), or keep or remove all.",
        ),
    ] = "default",
    embeddings: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*EMBEDDINGS),
            help="Token embeddings without an SAE stay (keep), or are nodes like others (default).",
        ),
    ] = "keep",
    edges: Annotated[bool, typer.Option("--edges", help="Ablate all edges but the circuit's, not nodes.")] = False,
    start_layer: Annotated[int, typer.Option(min=0, help="Lower layers are left as they are.")] = 0,
    sweep: Annotated[bool, typer.Option("--sweep", help="Evaluate parts of all sizes, the strongest first.")] = False,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            callback=check_numbers,
            help="Evaluate the parts above several thresholds, of effects or with --edges of weights: 0.1,0.2,0.5.",
        ),
    ] = None,
    plot: Plot = None,
    batch_size: BatchSize = 32,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Run the model on the circuit alone (faithfulness) and without it (completeness), on pairs of your choice."""
    from whence.methods.circuit_object import Circuit

    sweeping = sweep or thresholds is not None
    if plot is not None and not sweeping:
        raise typer.BadParameter("a picture shows parts of several sizes: it needs --sweep or --thresholds")
    asked = PairsAsked(pairs, agreement, relative_clauses, slots, limit, seed, held_out)
    whole = Circuit.load(run)
    about, circuit = whole.provenance, whole.threshold(node=node_threshold, edge=edge_threshold)
    chosen = recorded_units(about, dictionary, model)
    found = recorded_model(about, model, revision, device, dtype)
    examples = asked.read(found)
    options: dict[str, Any] = {
        "ablation": ablation, "errors": errors, "embeddings": embeddings, "edges": edges, "start_layer": start_layer,
        "batch_size": batch_size,
    }  # fmt: skip
    say(f"running the model with parts ablated, on {counted(len(examples), 'pair')}")
    with progress_bar() as progress:
        if sweeping:
            at = None if thresholds is None else numbers(thresholds)
            parts = circuit.sweep(found, chosen, examples, thresholds=at, **options, progress=progress)
            show_sweep(parts, plot, json)
            return
        scores = [
            score(found, chosen, examples, **options, progress=progress)
            for score in (circuit.faithfulness, circuit.completeness)
        ]
    show_scores(scores, json)
