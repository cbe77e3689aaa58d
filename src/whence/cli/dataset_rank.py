"""`whence dataset top-sources`, `top-targets`, `between` and `block`: what feeds what. Loads no model."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from whence.cli.console import print_json, print_table, stdout
from whence.cli.dataset_options import (
    Count,
    ItsModel,
    Key,
    Metric,
    Normalise,
    Offset,
    Page,
    Pages,
    Run,
    Sign,
    Sites,
    Source,
    Target,
    key_of,
    opened,
    plain,
)
from whence.cli.options import Json
from whence.cli.spreading import spread

if TYPE_CHECKING:
    from whence.results.dataset_results import Block, Ranking


@dataclass(frozen=True)
class Ranked:
    """What a ranking is asked with, from either end of an edge."""

    run: Run
    key: Key
    k: Count = 10
    metric: Metric = "attr"
    sign: Sign = "positive"
    normalise: Normalise = "token"
    page: Page = 1
    offset: Offset = None
    site: Sites = None
    model: ItsModel = None

    def of(self, end: Literal["sources", "targets"]) -> "Ranking":
        """The ranking of what stands at one end."""
        first, found = Pages(self.k, self.page, self.offset).first, opened(self.run, self.model)
        asked: dict[str, Any] = {"metric": self.metric, "sign": self.sign, "normalise": self.normalise}
        top = found.top_sources if end == "sources" else found.top_targets
        return top(key_of(found, self.key), self.k, offset=first, sites=self.site, **asked)


@spread(Ranked)
def top_sources(asked: Ranked, json: Json = False) -> None:
    """Show what feeds a unit or an output token, the strongest first."""
    present(asked.of("sources"), json)


@spread(Ranked)
def top_targets(asked: Ranked, json: Json = False) -> None:
    """Show what a unit or a source token feeds, the strongest first."""
    present(asked.of("targets"), json)


def present(ranking: "Ranking", json: bool) -> None:
    """The table, or the same as one document."""
    if json:
        print_json(ranking_said(ranking))
    else:
        print_table(ranking.table())


def ranking_said(ranking: "Ranking") -> dict[str, Any]:
    """A ranking in JSON's types."""
    about = {name: getattr(ranking, name) for name in ("side", "metric", "normalise", "sign", "offset", "ranked")}
    entries = [plain(asdict(entry) | {"key": str(entry.key)}) for entry in ranking]
    return {"of": str(ranking.of), **about, "entries": entries}


def between(
    run: Run,
    source: Source,
    target: Target,
    metric: Metric = "attr",
    normalise: Normalise = "token",
    model: ItsModel = None,
    json: Json = False,
) -> None:
    """Show the direct attribution from one unit to another, with its standard error."""
    found = opened(run, model)
    asked: dict[str, Any] = {"metric": metric, "normalise": normalise}
    edge = found.between(key_of(found, source), key_of(found, target), **asked)
    if json:
        print_json(plain(asdict(edge) | {"source": str(edge.source), "target": str(edge.target), **asked}))
        return
    error = "" if edge.standard_error is None else f" ± {edge.standard_error:.1e}"
    note = "" if edge.in_sum else "; belongs to no sum: a local derivative, or weighted sources"
    by = "raw sum" if normalise == "none" else f"by {normalise}"
    text = f"{edge.source} → {edge.target}: {edge.value:+.6g}{error} ({metric}, {by}{note})"
    stdout().print(text, soft_wrap=True, markup=False)


def block(
    run: Run,
    target_site: Target,
    source_site: Source,
    k: Count = 10,
    metric: Metric = "attr",
    normalise: Normalise = "token",
    json: Json = False,
) -> None:
    """Show the strongest edges from one site to another; with --json all of them, as a matrix."""
    asked: dict[str, Any] = {"metric": metric, "normalise": normalise}
    found = opened(run).block(target_site, source_site, **asked)
    if json:
        errors = None if found.standard_errors is None else found.standard_errors.tolist()
        ids = {"target_ids": found.target_ids.tolist(), "source_ids": found.source_ids.tolist()}
        print_json(plain({**asked, **ids, "values": found.values.tolist(), "standard_errors": errors}))
    else:
        _show_block(found, k)


def _show_block(found: "Block", k: int) -> None:
    from whence.cli.dataset_tables import edges_table

    columns = found.values.shape[1]
    targets, sources = found.targets, found.sources
    size = found.values.abs().nan_to_num(0.0).flatten()
    order = size.argsort(descending=True, stable=True)[:k].tolist()
    rows: list[tuple[str, str, float, float | None]] = []
    for row, column in (divmod(place, columns) for place in order if size[place] > 0):
        error = None if found.standard_errors is None else float(found.standard_errors[row, column])
        rows.append((str(sources[column]), str(targets[row]), float(found.values[row, column]), error))
    print_table(edges_table(repr(found), rows))
