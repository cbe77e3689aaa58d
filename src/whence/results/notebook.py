"""Tables for notebooks: self-contained, no script, in the reader's own colours; every text is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from whence.results.sheet import NEGATIVE, POSITIVE

_CELL = "padding:1px 14px 1px 0;background:transparent;text-align:left;white-space:pre"
_NUMBER = f"{_CELL};text-align:right;font-variant-numeric:tabular-nums"
_BAR = 160  # pixels of the largest value


@dataclass(frozen=True)
class Row:
    """Texts, each with the words it stands for (or ""); a number as text, and its size relative to the largest."""

    texts: tuple[tuple[str, str], ...]
    number: str
    share: float


def notebook_table(title: str, below: str, heads: tuple[str, ...], rows: Sequence[Row], notes: tuple[str, ...]) -> str:
    """A `<table>` whose rows end in a number and its bar.

    Args:
        title: Above it.
        below: Below the title.
        heads: Of the columns, the number's last.
        rows: The rows.
        notes: Below the table.
    """
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(name)}</th>' for name in heads[:-1])
    body = "".join(_row(row) for row in rows)
    foot = "<br>".join(map(escape, notes))
    return (
        '<table style="border-collapse:collapse;border:none;background:transparent;color:inherit">'
        f'<caption style="text-align:left;caption-side:top;color:inherit;padding:0 0 6px 0">'
        f"<b>{escape(title)}</b><br>{escape(below)}</caption>"
        f'<thead><tr>{head}<th scope="col" style="{_NUMBER}">{escape(heads[-1])}</th><th></th></tr></thead>'
        f"<tbody>{body}</tbody>"
        f'<tfoot><tr style="background:transparent"><td colspan="{len(heads) + 1}" style="{_CELL};opacity:.8">{foot}'
        "</td></tr></tfoot></table>"
    )


def _row(row: Row) -> str:
    texts = "".join(_text(text, words) for text, words in row.texts)
    number = f'<td style="{_NUMBER}">{escape(row.number)}</td><td style="{_CELL}">{_bar(row.share)}</td>'
    return f'<tr style="background:transparent">{texts}{number}</tr>'


def _text(text: str, words: str) -> str:
    said = f' <span style="opacity:.7">{escape(words)}</span>' if words else ""
    return f'<td style="{_CELL}">{escape(text)}{said}</td>'


def _bar(share: float) -> str:
    colour = POSITIVE if share > 0 else NEGATIVE
    return f'<div style="width:{abs(share) * _BAR:.0f}px;height:.8em;background:{colour}"></div>'
