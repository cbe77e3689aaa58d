"""`whence dataset show`, `stability` and `verify`: what a run holds, and how sure it is. Loads no model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whence.cli.console import print_json, print_table, progress_bar, stdout
from whence.cli.dataset_options import Count, Metric, Run, key_of, opened, plain
from whence.cli.dataset_rank import ranking_said
from whence.cli.options import Json

if TYPE_CHECKING:
    from whence.results.dataset import DatasetAttributions

_AT_A_GLANCE = 2**24  # numbers of a statistic, up to which the halves are compared unasked
_ALIKE = ("targets", "overlap", "rank_correlation")
_LONG = ("token_strings", "components", "model", "data")


def is_dataset(path: Path) -> bool:
    """Whether a path means dataset attributions: a store, a run, or a folder of runs."""
    from whence.results import manifest
    from whence.results.dataset_manifest import KIND
    from whence.results.dataset_runs import subruns

    if (path / manifest.NAME).is_file():
        return manifest.load(path).get("kind") == KIND
    return (path / "plan.json").is_file() or bool(subruns(path))


def show_dataset(run: str, key: str | None, rows: int, json: bool) -> None:
    """The part of `whence show` for dataset attributions.

    Raises:
        FileFormatError: none is finished.
    """
    if key is None:
        show(run, json)
        return
    found = opened(run)
    named = key_of(found, key)
    sides = {"into": found.has_target(named), "out_of": found.has_source(named)}
    if not any(sides.values()):
        found.top_sources(named)  # says why there is no such unit
    asked = {"into": found.top_sources, "out_of": found.top_targets}
    rankings = {name: asked[name](named, rows, sign="both") for name, there in sides.items() if there}
    if json:
        print_json({"node": named} | {name: ranking_said(one) for name, one in rankings.items()})
    else:
        for ranking in rankings.values():
            print_table(ranking.table())


def show(run: Run, json: Json = False) -> None:
    """Show a run's sites, tokens and settings, by how much its rows miss what they explain, and how stable it is."""
    found = opened(run)
    glance = {"worst_gap": worst_gap(found), "stability": _overlap(found)}
    if json:
        print_json(_said(found) | glance)
        return
    print_table(found.table())
    short = {name: value for name, value in found.settings.items() if name not in _LONG}
    lines = {
        "settings": ", ".join(f"{name} {value}" for name, value in short.items()),
        "worst gap": _number(glance["worst_gap"], ".1e", "no sums were checked"),
        "stability": _number(glance["stability"], ".1%", "ask `whence dataset stability`"),
    }
    for name, text in (lines | _missing(found)).items():
        stdout().print(f"{name:<12}{text}", soft_wrap=True, markup=False)


def _said(found: "DatasetAttributions") -> dict[str, Any]:
    header = found.header
    sides = {
        side: {site: {"units": axis.size, "stored": len(axis.ids)} for site, axis in found.axes(side).items()}  # type: ignore[arg-type]
        for side in ("source", "target")
    }
    pairs = [{"target": to, "source": site, "in_sum": in_sum} for (to, site), in_sum in header.pairs.items()]
    settings = {name: value for name, value in found.settings.items() if name != "token_strings"}
    return plain(
        {
            **{"tokens": found.tokens, "windows": len(header.windows), "statistics": list(header.statistics)},
            **{"sources": sides["source"], "targets": sides["target"], "pairs": pairs},
            **{"settings": settings, "provenance": dict(found.provenance)},
        }
    )


def worst_gap(found: "DatasetAttributions") -> float | None:
    """By how much rows missed what they explain at worst, over all shards; None where no sums were checked."""
    gaps = [float(one["worst_gap"]) for one in _provenances(found.provenance) if "worst_gap" in one]
    return max(gaps, default=None)


def _provenances(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield said
    for shard in said.get("shards", ()):
        yield shard.get("provenance", {})


def _overlap(found: "DatasetAttributions") -> float | None:
    axes = found.header
    size = sum(len(axes.targets[to].ids) * len(axes.sources[site].ids) for to, site in axes.pairs)
    both = {window % 2 for window in axes.windows} == {0, 1} and "attr.half" in axes.statistics
    return found.stability().overlap if both and size <= _AT_A_GLANCE else None


def _missing(found: "DatasetAttributions") -> dict[str, str]:
    gone = found.provenance.get("missing")
    return (
        {} if gone is None else {"missing": f"windows {gone['windows']}, shards {', '.join(gone['shards']) or 'none'}"}
    )


def _number(value: Any, form: str, otherwise: str) -> str:
    return otherwise if value is None else format(value, form)


def stability(run: Run, k: Count = 10, metric: Metric = "attr", json: Json = False) -> None:
    """Compare the two halves of the windows: would other data rank the sources of a unit alike?"""
    from whence.cli.dataset_tables import stability_table

    found = opened(run).stability(k, metric=metric)  # type: ignore[arg-type]
    if json:
        sites = {site: {name: getattr(one, name) for name in _ALIKE} for site, one in found.sites.items()}
        overall = {"overlap": found.overlap, "rank_correlation": found.rank_correlation}
        print_json(plain({"k": k, "metric": metric, **overall, "sites": sites}))
    else:
        print_table(stability_table(found))


def verify(run: Run) -> None:
    """Read a whole run and compare it with its checksums."""
    store = opened(run).store
    with progress_bar() as progress:
        store.verify(progress)
    stdout().print(f"{len(store.header.pairs):,} blocks are what their checksums say", markup=False)
