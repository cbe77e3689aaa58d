"""Dataset attributions in a terminal and a notebook: rankings with bars, and the sites of a store.

The sign is in the number; colour only repeats it. A value smaller than its standard error is dim. Cost: none. It
knows nothing of blocks.
"""

from rich import box
from rich.table import Table
from rich.text import Text

from whence.results.dataset_axes import Header
from whence.results.dataset_ranking import Entry
from whence.results.dataset_results import Ranking
from whence.results.notebook import Row, notebook_table
from whence.results.sheet import NEGATIVE, POSITIVE, number_format, quoted
from whence.results.words import counted

_BAR = 24  # characters of the largest value
_NO_SUM = "belongs to no sum: a local derivative, or weighted sources"


def ranking_table(ranking: Ranking) -> Table:
    """Rank, key, token, value, standard error and bar.

    Args:
        ranking: What to show.
    """
    title, below = _title(ranking), _below(ranking)
    out = Table(title=Text(title, "bold"), caption=Text(below, "dim"), box=box.SIMPLE_HEAD, pad_edge=False)
    out.title_justify = out.caption_justify = "left"
    for name, side in (("", "right"), (ranking.side, "left"), ("token", "left"), ("value", "right"), ("±", "right")):
        out.add_column(name, justify=side, no_wrap=True)  # pyright: ignore[reportArgumentType]  # a literal, in a loop
    out.add_column("", no_wrap=True)
    largest = max((abs(entry.value) for entry in ranking), default=0.0)
    show = number_format(largest)
    for rank, entry in enumerate(ranking, ranking.offset + 1):
        bar = "█" * round(_BAR * abs(entry.value) / largest)
        style = POSITIVE if entry.value > 0 else NEGATIVE
        texts = [f"{rank}", _key(entry), _said(entry), show(entry.value), _error(entry)]
        out.add_row(*map(Text, texts), Text(bar, style), style="dim" if _unsure(entry) else None)
    return out


def ranking_html(ranking: Ranking) -> str:
    """The same for a notebook.

    Args:
        ranking: What to show.
    """
    largest = max((abs(entry.value) for entry in ranking), default=0.0)
    show = number_format(largest)
    rows = [Row(((_key(one), _said(one)), (_error(one), "")), show(one.value), one.value / largest) for one in ranking]
    return notebook_table(_title(ranking), "", (ranking.side, "±", "value"), rows, (_below(ranking),))


def sites_table(header: Header) -> Table:
    """The sites of a store: how many units each has, and how many are stored on either side.

    Args:
        header: Of the store.
    """
    out = Table(title=Text("Dataset attributions", "bold"), caption=Text(said(header), "dim"), box=box.SIMPLE_HEAD)
    out.title_justify = out.caption_justify = "left"
    out.add_column("site", no_wrap=True)
    for name in ("units", "as sources", "as targets", "feeds", "is fed by"):
        out.add_column(name, justify="right", no_wrap=True)
    for site in dict.fromkeys([*header.sources, *header.targets]):
        source, target = header.sources.get(site), header.targets.get(site)
        size = max(axis.size for axis in (source, target) if axis is not None)
        stored = ["" if axis is None else f"{len(axis.ids):,}" for axis in (source, target)]
        links = [sum(pair[place] == site for pair in header.pairs) for place in (1, 0)]
        out.add_row(site, f"{size:,}", *stored, *(f"{count or ''}" for count in links))
    return out


def said(header: Header) -> str:
    """What a store holds, in words.

    Args:
        header: Of the store.
    """
    blocks = f"{counted(len(header.pairs), 'block')} from {counted(len(header.sources), 'source site')}"
    targets, windows = counted(len(header.targets), "target site"), counted(len(header.windows), "window")
    return f"{blocks} to {targets}, over {counted(header.tokens, 'token')} in {windows}"


def _title(ranking: Ranking) -> str:
    what = "What feeds" if ranking.side == "source" else "What is fed by"
    return f"{what} {ranking.of}"


def _below(ranking: Ranking) -> str:
    by = "raw sums" if ranking.normalise == "none" else f"by {ranking.normalise}"
    first = ranking.offset + 1
    places = f"{first} to {ranking.offset + len(ranking)} of {ranking.ranked}" if len(ranking) else "nothing is ranked"
    note = f"; * {_NO_SUM}" if any(not entry.in_sum for entry in ranking) else ""
    return f"{ranking.metric}, {by}; {places}{note}"


def _key(entry: Entry) -> str:
    return f"{entry.key}{'' if entry.in_sum else ' *'}"


def _said(entry: Entry) -> str:
    return "" if entry.token is None else quoted(entry.token)


def _error(entry: Entry) -> str:
    return "" if entry.standard_error is None else f"{entry.standard_error:.1e}"


def _unsure(entry: Entry) -> bool:
    return entry.standard_error is not None and entry.standard_error > abs(entry.value)
