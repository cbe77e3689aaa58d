"""Tables of the command line that the library has no object for: edges, changes, sites' numbers, a site's units."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from whence.results.dataset_compare import Differences
    from whence.results.dataset_results import SiteMatrix, Units
    from whence.results.dataset_stability import Stability

Row = tuple[str, str, float, float | None]


def edges_table(title: str, rows: Sequence[Row]) -> "Table":
    """Source, target, value and standard error."""
    from whence.results.sheet import number_format

    show = number_format(max((abs(row[2]) for row in rows), default=0.0))
    cells = ((source, target, show(value), _error(error)) for source, target, value, error in rows)
    return _table(title, ("source", "target"), ("value", "±"), cells)


def changes_table(found: "Differences", k: int, by: Any) -> "Table":
    """What changed most, and the settings that differ."""
    from whence.results.sheet import number_format

    changes = found.top(k, by=by)
    show = number_format(max((abs(one.value) for one in changes), default=0.0))
    cells = (
        (
            str(one.source),
            str(one.target),
            show(one.value),
            _error(one.standard_error),
            show(one.before),
            show(one.after),
        )
        for one in changes
    )
    return _table(repr(found), ("source", "target"), ("change", "±", "before", "after"), cells)


def matrix_table(matrix: "SiteMatrix", rows: int) -> "Table":
    """The pairs of sites with the largest numbers, and the share of all that the target is fed."""
    from whence.results.dataset_plot import shares_of

    shares, size = shares_of(matrix), matrix.values.abs().nan_to_num(0.0)
    order = size.flatten().argsort(descending=True, stable=True)[:rows].tolist()
    pairs = [divmod(place, len(matrix.sources)) for place in order]
    cells = (
        (matrix.sources[j], matrix.targets[i], f"{float(matrix.values[i, j]):.4g}", f"{float(shares[i, j]):.1%}")
        for i, j in pairs
        if size[i, j] > 0
    )
    return _table(repr(matrix), ("source site", "target site"), ("value", "of its target's"), cells)


_SUMS = {"importance": "Σ c", "value": "Σ c y", "absolute": "Σ c |y|", "square": "Σ y²", "fired": "fired"}


def units_table(units: "Units", first: int, k: int) -> "Table":
    """The units of a site with their raw quantities."""
    from whence.results.dataset_keys import node_of

    names = [f"{_SUMS[name]}\n{side}" for side in ("target", "source") for name in getattr(units, f"as_{side}")]
    columns = [*units.as_target.values(), *units.as_source.values()]
    ids = units.ids[first : first + k].tolist()
    words = ("unit", "token") if units.tokens else ("unit",)
    cells = [
        (
            *(str(node_of(units.site, id)), units.tokens.get(id, ""))[: len(words)],
            *(_quantity(float(each[place])) for each in columns),
        )
        for place, id in enumerate(ids, first)
    ]
    return _table(repr(units), words, names, cells)


def stability_table(found: "Stability") -> "Table":
    """How alike the halves rank sources, site by site."""
    cells = (
        (site, f"{one.targets:,}", f"{one.overlap:.3f}", f"{one.rank_correlation:.3f}")
        for site, one in found.sites.items()
    )
    title = f"The halves share {found.overlap:.1%} of their {found.k} strongest sources of a unit ({found.metric})"
    return _table(title, ("target site",), ("units", "overlap", "rank correlation"), cells)


def _table(title: str, words: Sequence[str], numbers: Sequence[str], cells: Iterable[Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(title=Text(title, "bold"), box=box.SIMPLE_HEAD, pad_edge=False)
    out.title_justify = "left"
    rows = list(cells)
    for place, name in enumerate(words):  # a key that is cut short names nothing
        out.add_column(name, no_wrap=True, min_width=max((len(row[place]) for row in rows), default=0))
    for name in numbers:
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        out.add_row(*map(Text, row))
    return out


def _error(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"


def _quantity(number: float) -> str:
    return "" if number != number else f"{number:,.5g}"
