"""The notebook table as a browser shows it."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from whence.results.scores import Scores

pytestmark = pytest.mark.browser

# The page reports on itself: what a reader would see is only known once it has been laid out.
PAGE = """<!doctype html><meta charset="utf-8"><body style="background:{paper};color:{ink};margin:16px">{table}
<script>window.ran = 0</script><script>
const root = document.documentElement
document.body.dataset.overflow = root.scrollWidth - root.clientWidth
document.body.dataset.rows = document.querySelectorAll("tbody tr").length
document.body.dataset.scripts = document.querySelectorAll("table script, table img").length
document.body.dataset.bars = [...document.querySelectorAll("tbody div > div:first-child")]
    .filter(bar => bar.getBoundingClientRect().width > 1).length
document.body.dataset.ran = window.ran
</script>"""
TOKENS = ("<s>", "<script>window.ran = 1</script>", " capital", " of", "<img src=x onerror='window.ran = 2'>", " is")


def page(table: str, dark: bool = False) -> str:
    return PAGE.format(table=table, paper="#111" if dark else "#fff", ink="#ddd" if dark else "#111")


def measured(dom: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r'data-(\w+)="(-?\d+)"', dom)}


def test_rows_bars_and_ledger_are_there(make: Callable[..., Scores], opened: Callable[..., str]) -> None:
    scores = make().top(5)
    dom = opened(page(scores._repr_html_()))
    seen = measured(dom)
    assert seen["rows"] == 6  # five, and the rest
    assert seen["bars"] >= 5
    assert all(str(key) in dom for key in scores.top(5).keys)
    assert "remainder" in dom


def test_tokens_are_text_whatever_they_hold(make: Callable[..., Scores], opened: Callable[..., str]) -> None:
    table = replace(make(tokens=TOKENS), target_labels=((TOKENS[1],),))._repr_html_()
    dom = opened(page(table))
    seen = measured(dom)
    assert (seen["scripts"], seen["ran"]) == (0, 0)
    assert "&lt;script&gt;" in dom


@pytest.mark.parametrize("targets", [0, 4])
def test_a_long_prompt_does_not_scroll_sideways(
    make: Callable[..., Scores], opened: Callable[..., str], targets: int
) -> None:
    tokens = tuple(f" word{number}" for number in range(400))
    table = make(targets=targets, tokens=tokens)._repr_html_()
    assert measured(opened(page(table), width=1280))["overflow"] <= 0
