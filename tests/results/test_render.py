from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from whence.results.keys import Node
from whence.results.scores import Scores

Make = Callable[..., Scores]


def _printed(scores: Scores, width: int = 100, k: int | None = None) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(scores.table(k))
    return [line.rstrip() for line in capture.get().splitlines()]


def _line(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.strip().startswith(start))


def test_one_line_says_shape_target_and_gap(make: Make) -> None:
    text = repr(make())

    assert text.startswith("Scores(40 nodes × 1 example: ' Austin' = ")
    assert text.endswith(" of Σ|parts|)")
    assert "\n" not in text
    assert repr(make(examples=2, targets=3)).startswith("Scores(40 nodes × 2 examples × 3 targets: remainder at most ")


def test_printing_scores_prints_their_table(make: Make) -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(make())

    assert [line.rstrip() for line in capture.get().splitlines()] == _printed(make())


def test_the_table_has_title_prompt_rows_and_ledger(make: Make) -> None:
    lines = _printed(make(), k=3)

    assert lines[0] == "What wrote ' Austin'"
    assert lines[1] == "at position 5, “<s>The capital of Texas is”"
    assert _line(lines, "rest (37 others)")
    assert _line(lines, "Σ of the parts")
    assert _line(lines, "the model's number")
    assert _line(lines, "remainder").endswith("of Σ|parts|")


@pytest.mark.parametrize("width", [40, 60, 76, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_bar_wraps(make: Make, width: int) -> None:
    lines = _printed(make(), width)

    assert max(map(len, lines)) <= width
    rule = next(place for place, line in enumerate(lines) if "───" in line)
    assert lines[rule + 17] == ""
    assert all(lines[rule + 1 : rule + 17])


@pytest.mark.parametrize("width", [76, 100])
def test_bars_grow_to_the_side_of_their_sign_by_their_size(make: Make, width: int) -> None:
    scores = make()
    lines = [line for line in _printed(scores, width, 6) if "│" in line]
    axis = {line.index("│") for line in lines}

    sizes = []
    for line in lines:
        key = line.split()[0]
        left, right = (part.count("█") + (part.count("▌") + part.count("▐")) / 2 for part in line.split("│"))
        if key != "rest":
            value = scores.values[scores.keys.index(Node.parse(key))].item()
            assert (left > 0, right > 0) == (value < 0, value > 0)
            sizes.append((left + right) / abs(value))
    assert len(axis) == 1
    assert len(sizes) == 6
    assert max(sizes) / min(sizes) < 1.3  # half a cell of rounding on the shortest


def test_the_sign_is_in_the_number_too(make: Make) -> None:
    rows = [line for line in _printed(make(), k=6) if "│" in line]

    assert all(("−" in row) != ("+" in row) for row in rows)
    assert {"−" in row for row in rows} == {True, False}


def test_several_targets_are_columns_without_bars(make: Make) -> None:
    lines = _printed(make(targets=6), k=2)

    assert [word for word in ("' word0'", "' word3'", "' word4'") if any(word in line for line in lines)] == [
        "' word0'",
        "' word3'",
    ]
    assert not any("│" in line for line in lines)
    assert lines[-1].startswith("remainder at most")


def test_tokens_cannot_speak_markup_or_move_the_cursor(make: Make) -> None:
    lines = _printed(make(tokens=("[bold]", "[/bold]", "\x1b[2J", "\n", "[link=x]", "[red]now")), k=40)

    assert "'[bold]'" in _line(lines, "0.attn.head:0~0")
    assert r"'\x1b[2J'" in _line(lines, "0.attn.head:0~2")
    assert "\x1b" not in "".join(lines)


def test_without_tokens_the_column_of_tokens_is_left_out(make: Make) -> None:
    scores = replace(make(), tokens=((),))

    assert not any("reads" in line for line in _printed(scores))
    assert any("reads" in line for line in _printed(make()))
