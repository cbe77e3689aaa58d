"""What a run of dataset attributions is asked with. The options are the library's own arguments."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.asking import SHIPPED, TOKEN, token
from whence.cli.console import one_of
from whence.cli.options import DTYPES, MODEL_HELP, REFERENCE_HELP

if TYPE_CHECKING:
    from whence.methods.dataset_settings import DatasetSettings
    from whence.model.model import Model

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
NATIVE = ("attn.head", "mlp.neuron", "attn", "mlp", "ssm")
METRICS = ("attr", "attr_abs", "mean_squared_attr")
NORMS, WEIGHTINGS = ("frozen", "live"), ("none", "source", "target", "both")
COMPAT = "spd-413"
_LENGTH = 512
_TO_SETTLE = {"model": "MODEL", "components": "--components REF", "data": "--data DATA", "output": "-o OUT"}


def _below_one(value: float) -> float:
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value:g} is not from 0 and below 1")
    return value


@dataclass(frozen=True)
class Wanted:
    """A run as it was typed; of what it needs, anything may be missing until `check`."""

    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = None
    components: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF",
            help=f"Whose units are sites: parameter components or dictionaries, {REFERENCE_HELP}; the model's own "
            f"units, {', '.join(NATIVE)}; for the demo model also demo, {', '.join(SHIPPED[:1] + SHIPPED[2:])}. "
            "Repeat it for more.",
        ),
    ] = None
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Text files (.txt, a document a line; .jsonl), token arrays (.npy, .safetensors), a folder of them, "
            "hf:org/name:split, or demo:N for N documents of the demo's language. Repeat it for more files.",
        ),
    ] = None
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="The folder of runs; this one goes below it.")
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help=f"What is summed: {', '.join(METRICS)}; all if not given. Repeat it."),
    ] = None
    norms: Annotated[
        str,
        typer.Option(
            metavar="WORD", callback=one_of(*NORMS), help="frozen, so that sources sum to their target; or live."
        ),
    ] = "frozen"
    weighting: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*WEIGHTINGS),
            help=f"Which side of an edge counts by its importance: {', '.join(WEIGHTINGS)}.",
        ),
    ] = "none"
    min_importance: Annotated[
        float,
        typer.Option(callback=_below_one, help="Importances up to this count as 0 on weighted sides; from 0, below 1."),
    ] = 0.0
    batches: Annotated[int | None, typer.Option(min=1, help="How many batches; all data if not given.")] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a batch.")] = 32
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens in a row; if not given 512, or all that the model reads if fewer.")
    ] = None
    seed: Annotated[int, typer.Option(help="Of the order of rows.")] = 0
    keep_order: Annotated[bool, typer.Option("--keep-order", help="Take rows in the order of the data.")] = False
    output_token: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help=f"Whose logit is a target of every metric: {TOKEN}."),
    ] = None
    compat: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", callback=one_of(COMPAT), help=f"{COMPAT}: sum as that pull request does, to compare."
        ),
    ] = None
    pack: Annotated[bool, typer.Option("--pack/--no-pack", help="Documents one after the other, or one a row.")] = True
    text_field: Annotated[str, typer.Option(help="Of records, the field with the text.")] = "text"
    fold: Annotated[int, typer.Option(min=1, help="Batches in a window, after which sums go to float64.")] = 8
    standard_errors: Annotated[
        bool,
        typer.Option("--standard-errors/--no-standard-errors", help="Keep what errors and stability need."),
    ] = True
    stop_at: Annotated[
        float | None,
        typer.Option(help="Stop once the halves agree on this share of the strongest sources, such as 0.95."),
    ] = None
    unembedding: Annotated[
        bool,
        typer.Option("--unembedding/--no-unembedding", help="Keep the unembedding, for output tokens not named here."),
    ] = True
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None
    device: Annotated[
        str | None, typer.Option(help="Where the model runs, e.g. cuda; the CPU if not given. Workers use it too.")
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", callback=one_of(*DTYPES), help=f"Of the weights: {', '.join(DTYPES)}."),
    ] = None

    def check(self) -> None:
        """Refuse a run without what it needs, and words that the library does not know."""
        missing = [said for name, said in _TO_SETTLE.items() if not getattr(self, name)]
        if missing:
            raise typer.BadParameter(f"a run needs {', '.join(missing)}")
        if self.min_importance and self.weighting == "none":
            raise typer.BadParameter("it does nothing without --weighting", param_hint="--min-importance")
        for word in self.metric or ():
            one_of(*METRICS)(word)

    def unchanged(self) -> bool:
        """Whether nothing was typed, so that another run's plan can stand for it."""
        return all(getattr(self, field.name) == field.default for field in fields(self))

    def settings(self, model: "Model") -> "DatasetSettings":
        """What is summed over which part of the data."""
        from whence.methods.dataset import token_ids
        from whence.methods.dataset_settings import DatasetSettings

        read = getattr(model.hf.config, "max_position_embeddings", None) or _LENGTH
        same = ("norms", "weighting", "min_importance", "batches", "batch_size", "compat", "fold")
        own: dict[str, Any] = {name: getattr(self, name) for name in (*same, "pack", "standard_errors", "stop_at")}
        return DatasetSettings(
            metrics=tuple(self.metric or METRICS),
            sequence_length=self.sequence_length or min(_LENGTH, read),
            seed=None if self.keep_order else self.seed,
            output_tokens=token_ids(model, [token(text) for text in self.output_token or ()]),
            **own,
        )
