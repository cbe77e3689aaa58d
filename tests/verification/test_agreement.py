"""Errors, ranks and signs of two matrices, against slow ways to say the same."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whence.verification.agreement import FLOOR, agreement, spearman

NUMBERS = st.lists(st.integers(-5, 5), min_size=2, max_size=12)


def slow_ranks(values: list[int]) -> list[float]:
    return [sum(v < x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


@given(NUMBERS, st.integers(0, 99))
def test_spearman_is_the_correlation_of_ranks(values: list[int], seed: int) -> None:
    other = random.Random(seed).sample(values, len(values))
    a, b = (torch.tensor(slow_ranks(side), dtype=torch.float64) for side in (values, other))
    found = spearman(*(torch.tensor(side, dtype=torch.float64) for side in (values, other)))
    if len(set(values)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(torch.corrcoef(torch.stack([a, b]))[0, 1]), abs=1e-9)


def test_errors_are_relative_to_each_nodes_strongest_edge() -> None:
    predicted = torch.tensor([[1.0, 10.0], [-2.0, 0.0]])
    measured = torch.tensor([[1.5, 10.0], [-2.0, 1.0]])
    found, worst = agreement(predicted, measured, 10.0)
    assert found.errors == (0.25, 0.1)
    assert worst == [0, 1]
    assert found.edges == 3
    assert found.max_error == 0.25


def test_a_node_far_weaker_than_the_graph_is_held_to_the_floor() -> None:
    found, _ = agreement(torch.tensor([[1e-9]]), torch.tensor([[2e-9]]), 10.0)
    assert found.errors[0] == pytest.approx(1e-9 / (FLOOR * 10.0), rel=1e-3)


def test_signs_count_only_where_there_is_an_edge() -> None:
    predicted = torch.tensor([[1.0], [-1.0], [0.0], [2.0]])
    measured = torch.tensor([[3.0], [4.0], [5.0], [0.0]])
    assert agreement(predicted, measured, 2.0)[0].sign == pytest.approx(1 / 3)


def test_an_effect_that_is_no_number_is_never_agreement() -> None:
    predicted = torch.tensor([[1.0, 10.0], [-2.0, 0.5]])
    found, worst = agreement(predicted, torch.tensor([[1.0, math.nan], [-2.0, 0.5]]), 10.0)
    assert found.errors[0] == 0
    assert math.isnan(found.errors[1])
    assert worst == [0, 0]
    assert math.isnan(found.max_error)
    assert math.isnan(found.spearman)
    assert found.sign == 0.75


def test_where_edges_may_have_been_cut_only_those_left_are_compared() -> None:
    predicted = torch.tensor([[1.0, 10.0], [-2.0, 0.0]])
    measured = torch.tensor([[1.5, 10.0], [-2.0, 8.0]])
    assert agreement(predicted, measured, 10.0, edges_only=True)[0].errors == (0.25, 0.0)
