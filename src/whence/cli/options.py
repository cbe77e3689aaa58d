"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from whence.cli.asking import NEURONS, TOKEN, check_output, check_shares
from whence.cli.console import one_of

DTYPES = ("float64", "float32", "bfloat16", "float16")
MODEL_HELP = "A model on the Hugging Face Hub, a folder, or 'demo' for the one that ships with whence."

Revision: TypeAlias = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]
Device: TypeAlias = Annotated[
    str | None, typer.Option(help="Where the model runs, e.g. cuda or cuda:1; the CPU if not given.")
]
Dtype: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        callback=one_of(*DTYPES),
        help=f"Of the weights: {', '.join(DTYPES)}; the checkpoint's own if not given.",
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

Prompt: TypeAlias = Annotated[str, typer.Argument(metavar="PROMPT", help="The text.")]
Position: TypeAlias = Annotated[int, typer.Option(help="Where to look at the next token; -1 is the last position.")]
REFERENCE_HELP = "a folder, a file, or org/repo, org/repo/sub or org/repo@revision on the Hub"
Units: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="REF",
        help=f"Transcoders that stand for the MLPs: {REFERENCE_HELP}; or '{NEURONS}' for the model's own neurons. "
        "The demo model has its own if not given.",
    ),
]
Gate: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="WORD",
        callback=one_of("frozen", "derivative"),
        help=f"With --dictionary {NEURONS}: how gated neurons read, frozen (if not given) or derivative.",
    ),
]
Targets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="TOKEN", help=f"What to explain: {TOKEN}. The most likely tokens if not given."),
]
MaxNodes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0, help="Features with a row of their own, the others summed; all if not given, of neurons 2,048."
    ),
]
ORDERS = ("influence", "exact")
Order: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="WORD",
        callback=one_of(*ORDERS),
        help="Which features get rows: the most influential as they are found (influence), or those with the "
        "largest total effect on the targets (exact).",
    ),
]
Memory: TypeAlias = Annotated[
    str | None, typer.Option(metavar="SIZE", help="All that the job may allocate, such as 8GB; rows beyond go to disk.")
]
Prune: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NODES/EDGES",
        callback=check_shares,
        help="Keep only the nodes and edges with these shares of influence, such as 0.8/0.98.",
    ),
]
Rows: TypeAlias = Annotated[int, typer.Option(min=1, help="Rows of the table.")]
Run: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `whence graph -o` saved.")]
Output: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", callback=check_output, help="The folder to save the graph in.")
]
OutputFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The file to write; beside the run, named as it is, if not given."),
]
