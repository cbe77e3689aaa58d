"""Scores in a notebook: one self-contained table, no script, readable on light and on dark paper.

Every text that comes from a prompt, a model or a caller is escaped. Colours are the reader's own (`currentColor`,
transparent), except the bars, whose side and signed number say the same as their blue or orange.
"""

from html import escape

from whence.results.scores import Scores
from whence.results.sheet import NEGATIVE, POSITIVE, Line, Sheet, sheet

_LINE = "border-top:1px solid currentColor"
_CELL = "padding:1px 10px 1px 0;background:transparent;text-align:left;white-space:pre"
_NUMBER = f"{_CELL};text-align:right;font-variant-numeric:tabular-nums"


def html(scores: Scores, k: int | None = None) -> str:
    """A `<table>` with the strongest rows, `rest`, and the ledger.

    Args:
        scores: All of them.
        k: Rows before `rest`; None is 15, or every row when `top` has chosen them before.

    Example:
        >>> html(scores)[:6]  # doctest: +SKIP
        '<table'
    """
    page = sheet(scores, k)
    one = len(page.columns) == 1
    reads = any(row.reads for row in page.lines)
    names, numbers = ["part", "reads"] if reads else ["part"], ["value"] if one else page.columns
    cells = "".join(f'<th scope="col" style="{_CELL}">{escape(text)}</th>' for text in names)
    cells += "".join(f'<th scope="col" style="{_NUMBER}">{escape(text)}</th>' for text in numbers)
    cells += "<th></th>" if one else ""
    caption = f"<b>{escape(page.title)}</b><br>{escape(page.caption)}"
    caption += "" if one else f"<br>remainder {escape(page.share)}"
    return (
        '<table style="border-collapse:collapse;border:none;background:transparent;color:inherit">'
        f'<caption style="text-align:left;caption-side:top;color:inherit;padding:0 0 6px 0">{caption}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{''.join(_row(page, row, reads) for row in page.lines)}</tbody>"
        f"<tfoot>{_ledger(page, reads)}</tfoot></table>"
    )


def _row(page: Sheet, row: Line, reads: bool) -> str:
    numbers = "".join(f'<td style="{_NUMBER}">{page.show(value)}</td>' for value in row.values)
    bar = f'<td style="{_CELL}">{_bar(page, row)}</td>' if len(page.columns) == 1 else ""
    token = f'<td style="{_CELL}">{escape(row.reads)}</td>' if reads else ""
    return f'<tr style="background:transparent"><td style="{_CELL}">{escape(row.key)}</td>{token}{numbers}{bar}</tr>'


def _bar(page: Sheet, row: Line) -> str:
    """A box of 240 pixels whose axis leaves each side the room its largest value needs."""
    left, right, zero = page.bar(row, 240.0)
    colour = "currentColor;opacity:.4" if row.closing else POSITIVE if row.values[0] > 0 else NEGATIVE
    axis = f"position:absolute;left:{zero:.0f}px;height:1em;border-left:1px solid currentColor"
    box = f"position:absolute;left:{left:.1f}px;width:{right - left:.1f}px;height:1em;background:{colour}"
    frame = "position:relative;width:241px;height:1em"
    return f'<div style="{frame}"><div style="{box}"></div><div style="{axis}"></div></div>'


def _ledger(page: Sheet, reads: bool) -> str:
    rows: list[str] = []
    one = len(page.columns) == 1
    for place, (name, numbers) in enumerate(page.ledger):
        said = page.share if name == "remainder" else ""
        note = f'<td style="{_CELL};opacity:.7">{escape(said)}</td>' if one else ""
        cells = "".join(f'<td style="{_NUMBER}"><b>{number}</b></td>' for number in numbers)
        line = _LINE if place == 0 else "border:none"
        rows.append(
            f'<tr style="background:transparent;{line}"><td style="{_CELL}"><b>{name}</b></td>'
            f"{'<td></td>' if reads else ''}{cells}{note}</tr>"
        )
    return "".join(rows)
