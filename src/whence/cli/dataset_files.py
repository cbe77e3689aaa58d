"""`whence dataset diff`, `export` and `import`: two runs compared, a run as a file, a file as a run. Loads no model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from whence.cli.console import one_of, print_json, print_table, stdout
from whence.cli.dataset_options import METRICS, RUN_HELP, Count, Metric, Normalise, Run, opened, plain
from whence.cli.options import Json

SUFFIXES, BY = (".csv", ".parquet", ".json"), ("value", "z")
_LINKS = 10  # sources of each target in a graph, if nobody says how many


def diff(
    before: Annotated[str, typer.Argument(metavar="RUN1", help=RUN_HELP)],
    after: Annotated[str, typer.Argument(metavar="RUN2", help="The run that is compared with it.")],
    k: Count = 10,
    by: Annotated[
        str,
        typer.Option(
            metavar="WORD", callback=one_of(*BY), help="Ranked by the change (value) or by it over its error (z)."
        ),
    ] = "value",
    metric: Metric = "attr",
    normalise: Normalise = "token",
    json: Json = False,
) -> None:
    """Show what is different in another run, data or checkpoint of the same components."""
    from whence.cli.dataset_tables import changes_table

    asked: dict[str, Any] = {"metric": metric, "normalise": normalise}
    found = opened(before).diff(opened(after), **asked)
    settings = {name: pair for name, pair in found.settings.items() if name != "token_strings"}
    if json:
        changes = [
            asdict(one) | {"source": str(one.source), "target": str(one.target)}
            for one in found.top(k, by=by)  # type: ignore[arg-type]
        ]
        print_json(plain({**asked, "by": by, "settings": settings, "changes": changes}))
    else:
        print_table(changes_table(found, k, by))


def _check_file(path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"'{path}' does not end in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder '{path.parent}'")
    return path


def export(
    run: Run,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", callback=_check_file, help="A table of edges, .csv or .parquet; a graph, .json."
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help=f"Which numbers: {', '.join(METRICS)}; all if not given. Repeat it."),
    ] = None,
    normalise: Normalise = "token",
    k: Annotated[
        int | None,
        typer.Option("-k", "--count", min=1, help=f"Sources of each target; all if not given, of a graph {_LINKS}."),
    ] = None,
) -> None:
    """Write the edges of a run as a table or as a graph."""
    for word in metric or ():
        one_of(*METRICS)(word)
    found: Any = opened(run)
    if output.suffix.lower() == ".json":
        if metric is not None and len(metric) > 1:
            raise typer.BadParameter("the links of a graph have one number; name one", param_hint="--metric")
        found.to_graph_json(output, k or _LINKS, metric=(metric or METRICS)[0], normalise=normalise)
    else:
        write = found.to_csv if output.suffix.lower() == ".csv" else found.to_parquet
        write(output, k, metrics=metric, normalise=normalise)
    stdout().print(str(output), soft_wrap=True, markup=False)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A dataset_attributions.pt that spd saved.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The folder of runs; this one goes below it.")
    ],
) -> None:
    """Make a run of dataset attributions that spd saved, without unpickling what is not plain data."""
    from whence.results.dataset_runs import new_subrun
    from whence.results.dataset_spd import read_spd
    from whence.results.dataset_writer import write_store

    header, blocks, extra = read_spd(file)  # before a folder is made for it
    import torch

    made = write_store(new_subrun(output) / "result", header, blocks, extra, dtype=torch.float32)
    stdout().print(str(made), soft_wrap=True, markup=False)
