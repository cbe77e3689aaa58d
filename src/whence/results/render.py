"""Scores in a terminal: one line for `repr`, and a table of bars with the ledger below them.

Bars are scaled to the largest value, to the right for what adds and to the left for what takes away. The sign is in the
number and in the direction of its bar; colour only repeats it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from whence.results.scores import Scores
from whence.results.sheet import NEGATIVE, POSITIVE, Line, Sheet, gap, number_format, quoted, share, sheet

_BAR_WIDTH = 36


def line(scores: Scores) -> str:
    """Scores in one short line.

    Args:
        scores: All of them.

    Example:
        >>> line(scores)  # doctest: +SKIP
        "Scores(157 nodes × 1 example: ' Austin' = +12.35, remainder +4.8e-07, 3.1e-08 of Σ|parts|)"
    """
    counts = zip(scores.values.shape, scores.axes, strict=True)
    shape = " × ".join(f"{n} {axis}{'' if n == 1 else 's'}" for n, axis in counts)
    if scores.target.numel() > 1:
        return f"Scores({shape}: remainder {share(scores)})"
    value = scores.target.item()
    label, number = quoted(scores.target_labels[0][0]), number_format(abs(value))(value)
    return f"Scores({shape}: {label} = {number}, remainder {gap(scores.remainder.item())}, {share(scores)})"


def table(scores: Scores, k: int | None = None) -> Table:
    """The strongest rows with their bars, `rest`, and the ledger.

    Args:
        scores: All of them.
        k: Rows before `rest`; None is 15, or every row when `top` has chosen them before.

    Example:
        >>> rich.print(table(scores))  # doctest: +SKIP
    """
    page = sheet(scores, k)
    reads, one = any(row.reads for row in page.lines), len(page.columns) == 1
    out = _frame(page, reads, one)
    for row in page.lines:
        values = [Text(page.show(value), _colour(value)) for value in row.values]
        texts = [Text(row.key), *([Text(row.reads)] if reads else [])]
        out.add_row(*texts, *values, *([_Bar(page, row)] if one else []), style="dim" if row.closing else None)
    out.add_section()
    for name, numbers in page.ledger:
        note = Text(page.share if name == "remainder" else "", "dim")
        out.add_row(Text(name), *([""] if reads else []), *map(Text, numbers), *([note] if one else []), style="bold")
    return out


def _frame(page: Sheet, reads: bool, one: bool) -> Table:
    """The empty table: title, prompt and columns."""
    title = Text(page.title, "bold") + Text(f"\n{page.caption}" if page.caption else "", "not bold dim")
    note = None if one else Text(f"remainder {page.share}", "dim")
    out = Table(title=title, caption=note, box=box.SIMPLE_HEAD, pad_edge=False)
    out.title_justify = out.caption_justify = "left"
    out.add_column("part", no_wrap=True)
    if reads:
        out.add_column("reads", no_wrap=True, max_width=18)
    for label in page.columns:
        out.add_column(Text("value" if one else label), justify="right", no_wrap=True, max_width=20)
    if one:
        out.add_column("", max_width=_BAR_WIDTH)
    return out


def _colour(value: float) -> str:
    return POSITIVE if value > 0 else NEGATIVE if value < 0 else ""


@dataclass(frozen=True)
class _Bar:
    """Half-cell blocks on their side of an axis that leaves each side the room its largest value needs.

    Drawn to the width it is given, so that a narrow terminal scales bars and never cuts them.
    """

    page: Sheet
    row: Line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(8, options.max_width), min(_BAR_WIDTH, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        room = min(_BAR_WIDTH, options.max_width) - 1
        left, right, axis = self.page.bar(self.row, 2.0 * room)
        before = round(axis / 2)
        value, line = self.row.values[0], Text("│", "dim")
        length = min(round(right - left), 2 * (before if value < 0 else room - before))
        whole, half = "█" * (length // 2), length % 2
        style = "dim" if self.row.closing else _colour(value)
        if value < 0:
            yield Text(("▐" * half + whole).rjust(before), style, no_wrap=True) + line
        else:
            yield Text(" " * before, no_wrap=True) + line + Text(whole + "▌" * half, style)
