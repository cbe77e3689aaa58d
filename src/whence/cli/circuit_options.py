"""Options that the commands on circuits share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from whence.cli.asking import check_output
from whence.cli.console import one_of
from whence.cli.options import REFERENCE_HELP
from whence.cli.pictures import check_picture

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
KINDS = ("simple", "pp", "orc", "src", "tpp", "pporc")
NATIVE = ("attn.head", "mlp.neuron", "attn", "mlp", "embed")

Run: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `whence circuit -o` saved.")]
Output: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", callback=check_output, help="The folder to save the circuit in.")
]
Plot: TypeAlias = Annotated[
    Path | None, typer.Option(callback=check_picture, help="Where to save a picture: .png, .svg or .pdf.")
]
Dictionaries: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REF",
        help=f"Dictionaries whose features are nodes: {REFERENCE_HELP}; or the model's own units: {', '.join(NATIVE)}. "
        "Repeat it for more.",
    ),
]
PairsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--pairs", metavar="FILE", help="Clean and patch prompts with their answers, a JSON object a line."),
]
Agreement: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        callback=one_of(*KINDS),
        help=f"Instead, pairs of the demo's grammar: {', '.join(KINDS)}.",
    ),
]
RelativeClauses: TypeAlias = Annotated[
    bool, typer.Option("--relative-clauses", help="Instead, made from “The {subject} that the {noun} {verb}”.")
]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=1, help="How many pairs; all of a file, or 100 made ones.")]
Seed: TypeAlias = Annotated[
    int | None, typer.Option(help="Of the draw of pairs; the first ones of a file if not given.")
]
HeldOut: TypeAlias = Annotated[
    bool, typer.Option("--held-out", help="Of pairs that are made: those with nouns that are kept apart for tests.")
]
Slots: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE",
        help="Names of a file's positions: simple, nounpp, within_rc, rc, index, or 'The {subject} of the {owner}'.",
    ),
]
BatchSize: TypeAlias = Annotated[int, typer.Option(min=1, help="Pairs that run together.")]
CutNodes: TypeAlias = Annotated[
    float | None, typer.Option("--node-threshold", min=0, help="Only nodes whose effect exceeds this in size.")
]
CutEdges: TypeAlias = Annotated[
    float | None, typer.Option("--edge-threshold", min=0, help="Only edges whose weight exceeds this in size.")
]
