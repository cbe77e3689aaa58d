from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.scores import Scores
from whence.results.sheet import number_format, quoted, share, sheet

Make = Callable[..., Scores]


def _reads(scores: Scores) -> dict[str, str]:
    return {line.key: line.reads for line in sheet(scores, len(scores.keys)).lines}


def test_the_strongest_rows_come_first_and_the_others_are_counted(make: Make) -> None:
    page = sheet(make(), 4)

    sizes = [abs(line.values[0]) for line in page.lines[:4]]
    assert sizes == sorted(sizes, reverse=True)
    assert [line.closing for line in page.lines] == [False] * 4 + [True]
    assert page.lines[-1].key == "rest (36 others)"


def test_one_hidden_row_is_one_other(make: Make) -> None:
    assert sheet(make(), 39).lines[-1].key == "rest (1 other)"


def test_fifteen_rows_are_shown_unless_top_has_chosen(make: Make) -> None:
    assert len(sheet(make()).lines) == 16
    assert len(sheet(make().top(20)).lines) == 21
    assert len(sheet(make().top(20), 3).lines) == 4
    assert sheet(make().top(20)).lines[-1].key == "rest"


def test_rows_that_are_all_shown_need_no_rest(make: Make) -> None:
    assert not any(line.closing for line in sheet(make(), 40).lines)


def test_embeddings_and_source_tokens_show_what_they_read(make: Make) -> None:
    reads = _reads(make())

    assert reads["embed"] == "' is'"
    assert reads["1.attn.head:2~2"] == "' capital'"
    assert reads["0.mlp"] == ""


def test_a_node_with_a_position_reads_there() -> None:
    keys, values = Keys.of([Node("embed", position=0), Node("embed", position=9)]), torch.ones(2, 1)
    scores = Scores(keys, values, values.sum(0), ("node", "example"), ((" x",),), (("The", " end"),), ((1,),))

    assert _reads(scores) == {"embed@0": "'The'", "embed@9": ""}


def test_nothing_is_read_where_examples_or_positions_differ(make: Make) -> None:
    two = make(examples=2)
    differing = replace(two, tokens=(two.tokens[0], two.tokens[0][::-1]))

    assert set(_reads(differing).values()) == {""}
    assert _reads(make(positions=2))["embed"] == ""
    assert _reads(make(positions=2))["0.attn.head:0~3"] == "' of'"


def test_the_ledger_is_of_all_rows_not_of_those_shown(make: Make) -> None:
    scores = make()

    ledgers = [sheet(scores, k).ledger for k in (0, 3, 40)]

    total = scores.values.double().sum()
    for (parts, (said,)), (number, (explained,)), (gap, (left,)) in ledgers:
        assert (parts, number, gap) == ("Σ of the parts", "the model's number", "remainder")
        assert float(said.replace("−", "-")) == pytest.approx(total.item(), abs=1e-2)
        assert float(explained.replace("−", "-")) == pytest.approx(scores.target.item(), abs=1e-2)
        assert float(left.replace("−", "-")) == pytest.approx(scores.remainder.item(), rel=0.05)


def test_averages_are_said(make: Make) -> None:
    page = sheet(make(examples=3, positions=2))

    assert page.caption.startswith("mean over 3 examples and 2 positions")
    assert sheet(make(examples=3).mean()).caption.startswith("mean over 3 examples, at position 5")


def test_an_average_shows_the_mean_and_the_worst_gap(make: Make) -> None:
    two = make(examples=2)
    uneven = replace(two, target=two.values.sum(0) + torch.tensor([1.0, -1.0]))

    page = sheet(uneven, 40)

    assert page.share == f"at most {(uneven.remainder.abs() / uneven.magnitude).max():.1e} of Σ|parts|"
    shown = {line.key: line.values[0] for line in page.lines}
    assert shown["0.mlp"] == pytest.approx(two.values[two.keys.index(Node("mlp", 0))].mean().item(), rel=1e-6)
    assert abs(float(page.ledger[2][1][0].replace("−", "-"))) < 1e-3


def test_four_targets_stand_side_by_side_and_more_are_said(make: Make) -> None:
    page = sheet(make(targets=6), 2)

    assert page.title == "What wrote 6 targets"
    assert page.columns == ("' word0'", "' word1'", "' word2'", "' word3'")
    assert page.caption.startswith("the first 4 of 6 targets")
    assert all(len(line.values) == 4 for line in page.lines)
    assert all(len(numbers) == 4 for _, numbers in page.ledger)


def test_targets_that_differ_between_examples_are_counted(make: Make) -> None:
    scores = replace(make(examples=2), target_labels=((" a",), (" b",)))

    assert sheet(scores).title == "What wrote mean of 2 targets"


def test_a_long_prompt_loses_its_beginning(make: Make) -> None:
    caption = sheet(make(tokens=tuple(f" word{i}" for i in range(40)))).caption

    assert "“…" in caption
    assert caption.endswith("word39”")
    assert len(caption) < 90


def test_token_ids_stay_apart(make: Make) -> None:
    assert sheet(make(tokens=("15", "7", "262"))).caption.endswith("“15 7 262”")


def test_bars_share_one_axis_and_fill_the_room(make: Make) -> None:
    page = sheet(make(), 6)

    bars = [page.bar(line, 50.0) for line in page.lines]
    assert len({axis for _, _, axis in bars}) == 1
    assert min(left for left, _, _ in bars) == pytest.approx(0.0, abs=1e-9)
    assert max(right for _, right, _ in bars) == pytest.approx(50.0)
    for (left, right, axis), line in zip(bars, page.lines, strict=True):
        assert (right if line.values[0] < 0 else left) == pytest.approx(axis)


def test_scores_of_zeros_and_of_nothing_can_be_shown(make: Make) -> None:
    scores = make()
    zeros = replace(scores, values=scores.values * 0, target=scores.target * 0)

    assert sheet(zeros).lines[0].values == (0.0,)
    assert share(zeros) == "0.0e+00 of Σ|parts|"
    assert sheet(zeros).bar(sheet(zeros).lines[0], 10.0) == (0.0, 0.0, 0.0)
    assert sheet(replace(zeros, keys=Keys([]), values=scores.values[:0])).lines == ()


@pytest.mark.parametrize(
    ("largest", "value", "text"),
    [
        (12.0, 1.5, "+1.50"),
        (3.0, -1.5, "−1.500"),
        (0.01, 0.001, "+0.00100"),
        (4321.0, 1.6, "+2"),
        (0.0, 0.0, "+0.000"),
        (1e-7, 1e-7, "+1.000e-07"),
        (2e6, -1.5, "−1.500e+00"),
    ],
)
def test_numbers_have_four_figures_of_the_largest(largest: float, value: float, text: str) -> None:
    assert number_format(largest)(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Austin", "' Austin'"),
        ("Austin", "Austin"),
        ("' Mary' − ' John'", "' Mary' − ' John'"),
        ("", "''"),
        ("\n", r"'\n'"),
        ("a\u202eb", r"'a\u202eb'"),
        ("\x1b[31m", r"'\x1b[31m'"),
    ],
)
def test_text_is_quoted_where_it_would_not_be_seen(text: str, shown: str) -> None:
    assert quoted(text) == shown
