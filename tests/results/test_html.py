import re
from collections.abc import Callable
from html.parser import HTMLParser

from whence.results.scores import Scores

Make = Callable[..., Scores]


class _Reader(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"style", "scope"}
        self.styles += [value or "" for name, value in attrs if name == "style"]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_table_nests_and_carries_rows_and_ledger(make: Make) -> None:
    page = _Reader(make()._repr_html_())

    assert page.open == []
    assert page.tags.count("tr") == 1 + 16 + 3
    assert {"What wrote ' Austin'", "rest (25 others)", "Σ of the parts", "the model's number"} <= set(page.text)
    assert any(text.endswith("of Σ|parts|") for text in page.text)


def test_every_row_has_as_many_cells(make: Make) -> None:
    for scores in (make(), make(targets=3)):
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", scores._repr_html_())
        assert len({len(re.findall(r"<t[dh]", row)) for row in rows}) == 1


def test_text_from_prompts_and_callers_is_escaped(make: Make) -> None:
    evil = "<script>alert(1)</script>"
    scores = make(tokens=(evil, '"onload="x', "&amp;", "<b>", "'", evil))
    labelled = Scores(
        scores.keys, scores.values, scores.target, scores.axes, ((evil,),), scores.tokens, scores.positions
    )

    page = _Reader(labelled._repr_html_())

    assert set(page.tags) == {"table", "caption", "b", "br", "thead", "tbody", "tfoot", "tr", "th", "td", "div"}
    assert f"What wrote {evil}" in page.text
    assert f"'{evil}'" in page.text


def test_it_is_legible_on_light_and_on_dark_paper(make: Make) -> None:
    colours = re.findall(r"(?:^|[;:\s])(?:color|background):([^;]+)", ";".join(_Reader(make()._repr_html_()).styles))

    assert set(colours) <= {"inherit", "transparent", "currentColor", "#3a87c8", "#d9661f"}


def test_nothing_is_fetched(make: Make) -> None:
    assert not re.search(r"url\(|src=|href=|http", make()._repr_html_())


def test_the_sides_of_bars_agree_with_the_signs(make: Make) -> None:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", make()._repr_html_())[1:16]

    assert len(rows) == 15
    for row in rows:
        assert ("−" in row) == ("#d9661f" in row)
        assert ("+" in row) == ("#3a87c8" in row)
