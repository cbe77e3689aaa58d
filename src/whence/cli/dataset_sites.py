"""`whence dataset layers` and `components`: questions to a run about whole sites. Loads no model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from whence.cli import dataset_tables as tables
from whence.cli.console import one_of, print_json, print_table
from whence.cli.dataset_options import HOW, Count, Metric, Normalise, Offset, Page, Pages, Run, opened, plain
from whence.cli.options import Json
from whence.cli.pictures import check_picture

_SIDES = ("as_target", "as_source")


def layers(
    run: Run,
    how: Annotated[
        str, typer.Option(metavar="WORD", callback=one_of(*HOW), help=f"Over the units of two sites: {', '.join(HOW)}.")
    ] = "sum_abs",
    metric: Metric = "attr",
    normalise: Normalise = "token",
    k: Count = 20,
    plot: Annotated[
        Path | None, typer.Option(callback=check_picture, help="Where to save a picture: .png, .svg or .pdf.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one number for every pair of sites, the largest first; and draw them all."""
    found = opened(run)
    asked: dict[str, Any] = {"metric": metric, "how": how, "normalise": normalise}
    matrix = found.layer_matrix(**asked)
    if plot is not None:
        found.plot_layer_matrix(plot, **asked)
    if json:
        sites = {"targets": list(matrix.targets), "sources": list(matrix.sources)}
        print_json(plain({**asked, **sites, "values": matrix.values.tolist()}))
    else:
        print_table(tables.matrix_table(matrix, k))


def components(
    run: Run,
    site: Annotated[str, typer.Argument(metavar="SITE", help="Such as 1.attn.q, 2.mlp.feature or embed.")],
    k: Count = 20,
    page: Page = 1,
    offset: Offset = None,
    json: Json = False,
) -> None:
    """Show the stored units of a site with their raw sums: importance, how often they fired, Σ y²."""
    units = opened(run).components(site)
    first = Pages(k, page, offset).first
    if json:
        sides = {side: {name: each.tolist() for name, each in getattr(units, side).items()} for side in _SIDES}
        print_json(plain({"site": site, "size": units.size, "ids": units.ids.tolist(), "tokens": units.tokens} | sides))
    else:
        print_table(tables.units_table(units, first, k))
