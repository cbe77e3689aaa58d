"""Options that several commands share."""

from typing import Annotated, TypeAlias

import typer

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
