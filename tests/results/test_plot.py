import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from whence.results.scores import Scores

Make = Callable[..., Scores]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_the_suffix_decides_the_format(make: Make, tmp_path: Path, suffix: str, start: bytes) -> None:
    make().plot(tmp_path / f"parts{suffix}")

    assert (tmp_path / f"parts{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["parts.jpeg", "parts", "parts.png.txt"])
def test_another_suffix_is_refused_by_naming_the_known_ones(make: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}': its suffix must be one of \.png, \.svg, \.pdf"):
        make().plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_message_is_the_pip_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ImportError, match=r"pip install 'whence\[plot\]'"):
        make().plot()


def test_the_size_depends_on_rows_and_targets_only(make: Make) -> None:
    sizes = [tuple(make(examples=n).plot(k=k).get_size_inches()) for n in (1, 4) for k in (5, 10)]

    assert sizes[:2] == sizes[2:]
    assert sizes[1][1] - sizes[0][1] == pytest.approx(5 * 0.27)
    assert make(targets=3).plot(k=5).get_size_inches()[0] > sizes[0][0]


def test_bars_numbers_and_names_are_those_of_the_scores(make: Make) -> None:
    scores = make()
    (axes,) = scores.plot(k=5).axes

    top = scores.top(5)
    assert [bar.get_width() for bar in axes.patches] == top.values[:, 0].tolist()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.split()[-1] for name in names[:5]] == [str(key) for key in top.keys[:5]]
    assert names[5] == "rest (35 others)"
    numbers = [text.get_text() for text in axes.texts]
    assert [number[0] for number in numbers] == ["+" if value > 0 else "−" for value in top.values[:, 0].tolist()]


def test_the_ledger_stands_below(make: Make) -> None:
    (axes,) = make().plot().axes

    assert axes.get_xlabel().startswith("Σ of the parts ")
    assert "\nremainder +" in axes.get_xlabel()
    assert axes.get_xlabel().endswith("of Σ|parts|")


def test_blue_adds_orange_takes_away_and_small_is_pale(make: Make) -> None:
    scores = make()
    (axes,) = scores.plot(k=12).axes

    for bar in axes.patches[:12]:
        red, _, blue, _ = bar.get_facecolor()
        assert (blue > red) == (bar.get_width() > 0)
    paleness = [min(bar.get_facecolor()[:3]) for bar in axes.patches[:12] if bar.get_width() > 0]
    assert paleness == sorted(paleness)


def test_several_targets_are_panels_on_one_scale(make: Make) -> None:
    panels = make(targets=6).plot(k=3).axes

    assert [axes.get_title(loc="left") for axes in panels] == ["' word0'", "' word1'", "' word2'", "' word3'"]
    assert len({axes.get_xlim() for axes in panels}) == 1


def test_dollars_in_tokens_are_no_formulas(make: Make, tmp_path: Path) -> None:
    scores = make(tokens=("$x", " costs", " $5^", "$", "\\frac", " $"))
    (axes,) = replace(scores, target_labels=(("$_",),)).plot(tmp_path / "a.png", k=40).axes

    assert not any(label.get_parse_math() for label in axes.get_yticklabels())


def test_no_window_and_no_global_figure_is_opened(make: Make) -> None:
    make().plot()

    assert "matplotlib.pyplot" not in sys.modules
