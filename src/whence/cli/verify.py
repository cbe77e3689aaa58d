"""`whence verify`: does the model do what a saved graph says? Exit code 1 if it does not."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.asking import dictionaries
from whence.cli.console import print_json, progress_bar, say, stderr, stdout
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision, Run, Units
from whence.cli.recorded import recorded_dictionary, recorded_model, stated
from whence.cli.show import opened

if TYPE_CHECKING:
    from whence.components.sets import DictionarySet
    from whence.results.graph import Graph
    from whence.verification.report import VerificationReport

REFUTED = 1


def verify(
    run: Run,
    model: Annotated[str | None, typer.Option(help=f"{MODEL_HELP} The graph's own if not given.")] = None,
    dictionary: Units = None,
    k: Annotated[int, typer.Option("-k", "--count", min=1, help="How many nodes to remove, the strongest first.")] = 64,
    max_error: Annotated[
        float, typer.Option(help="Largest relative error to let through, norms and attention frozen.")
    ] = 1e-3,
    spearman: Annotated[
        float | None, typer.Option(help="Least rank correlation with the live model; not asked for if not given.")
    ] = None,
    sign: Annotated[
        float | None, typer.Option(help="Least share of effects with the right sign in the live model; likewise.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Remove a graph's nodes from the model, one by one, and compare what follows with what the graph says."""
    from whence.verification.verify import verify as measured

    graph = opened(run, None)
    stand_in = _dictionary(graph, dictionary, model)
    found = recorded_model(graph.provenance, model, revision, device, dtype)
    say("removing nodes, one by one")
    with progress_bar() as progress:
        report = measured(graph, found, stand_in, k=k, progress=progress)
    _finish(report, json, max_error=max_error, spearman=spearman, sign=sign)


def _finish(report: "VerificationReport", json: bool, **bounds: Any) -> None:
    from rich.text import Text

    from whence.errors import VerificationError

    if json:
        print_json(report.to_json())
    else:
        stdout().print(Text(str(report)))
    try:
        report.check(**bounds)
    except VerificationError as error:
        stderr().print("[bold red]refuted:[/]", Text(str(error)), soft_wrap=True)
        raise typer.Exit(REFUTED) from None


def _dictionary(graph: "Graph", given: str | None, model: str | None) -> "DictionarySet | None":
    """The dictionary named, or the one that the graph was made with.

    Raises:
        FileFormatError: it is not where it was, or no longer what it was.
    """
    if given is not None:
        return dictionaries(given, model or "")
    about = stated(graph.provenance, "dictionary")
    return None if about["kind"] == "neurons" else recorded_dictionary(about)
