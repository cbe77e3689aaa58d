"""Options that the commands on dataset attributions share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from whence.cli.console import one_of
from whence.cli.options import MODEL_HELP

if TYPE_CHECKING:
    from whence.results.dataset import DatasetAttributions

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
METRICS = ("attr", "attr_abs", "mean_squared_attr", "rms")
SIGNS = ("positive", "negative", "both")
NORMALISERS = ("token", "source", "share", "target_rms", "none")
HOW = ("sum_abs", "rms", "sum")

RUN_HELP = "A folder of runs (its newest finished one), one run, a store, or the id of a run."
Run: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
OneRun: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RUN", help="A planned run, da-…; of a folder of runs, the newest.")
]
Key: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="KEY", help="A unit: 1.attn.q:5, 2.mlp.feature:17, embed:262, or 'output: sings' by text."),
]
Source: TypeAlias = Annotated[str, typer.Argument(metavar="SOURCE", help="Key of the unit that feeds.")]
Target: TypeAlias = Annotated[str, typer.Argument(metavar="TARGET", help="Key of the unit that is fed.")]
Metric: TypeAlias = Annotated[
    str, typer.Option(metavar="WORD", callback=one_of(*METRICS), help=f"Which number: {', '.join(METRICS)}.")
]
Sign: TypeAlias = Annotated[
    str, typer.Option(metavar="WORD", callback=one_of(*SIGNS), help=f"Which values: {', '.join(SIGNS)}.")
]
Normalise: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="WORD", callback=one_of(*NORMALISERS), help=f"What sums are divided by: {', '.join(NORMALISERS)}."
    ),
]
Count: TypeAlias = Annotated[int, typer.Option("-k", "--count", min=1, help="How many.")]
Page: TypeAlias = Annotated[int, typer.Option(min=1, help="Which page of so many, from 1.")]
Offset: TypeAlias = Annotated[int | None, typer.Option(min=0, help="Instead of a page, how many to pass over.")]
Sites: TypeAlias = Annotated[
    list[str] | None, typer.Option("--site", metavar="SITE", help="Only units of this site. Repeat it for more.")
]
ItsModel: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", help=f"Whose unembedding to use for output tokens, if none was kept. {MODEL_HELP}"),
]


@dataclass(frozen=True)
class Pages:
    """Which part of a ranking is asked for."""

    k: int
    page: int
    offset: int | None

    @property
    def first(self) -> int:
        """How many units come before it.

        Raises:
            BadParameter: a page and a number at once.
        """
        if self.offset is not None and self.page > 1:
            raise typer.BadParameter("it says otherwise what --offset says; give one of them", param_hint="--page")
        return (self.page - 1) * self.k if self.offset is None else self.offset


def opened(run: str, model: str | None = None) -> "DatasetAttributions":
    """The finished result that is meant.

    Raises:
        FileFormatError: there is none.
    """
    from whence.cli.loading import load
    from whence.results.dataset import DatasetAttributions

    return DatasetAttributions.load(run, model=None if model is None else load(model, None, None, None))


def key_of(found: "DatasetAttributions", text: str) -> str:
    """A key, where a token may be given by its text: 'output: sings' is output:ID of ' sings'.

    Raises:
        KeyError: no token of the data or of those named up front says that.
    """
    name, colon, said = text.partition(":")
    if name not in ("embed", "output") or not colon or said.isdecimal():
        return text
    ids = [id for id, token in found.strings.items() if token == said]
    if not ids:
        raise KeyError(f"no token of this run is {said!r} (mind the leading space); give its id, such as {name}:262.")
    return f"{name}:{ids[0]}"


def plain(value: Any) -> Any:
    """A value in JSON's types, with nothing where a number is not defined."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value  # pyright: ignore[reportUnknownVariableType]
