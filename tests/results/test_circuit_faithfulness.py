"""The ratio, its interval, and what is said of it."""

import pytest
import torch
from torch import Tensor

from whence.results.circuit_faithfulness import CircuitScore


def score(chosen: Tensor, empty: Tensor, model: Tensor) -> CircuitScore:
    return CircuitScore("faithfulness", chosen.double(), empty.double(), model.double(), 3, None, 60, 3)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_ratio_is_of_means_and_does_not_ask_for_the_sign_of_the_metric() -> None:
    one = score(numbers(2.0, 4.0), numbers(0.0, 2.0), numbers(4.0, 8.0))
    assert one.value == pytest.approx((3 - 1) / (6 - 1))
    torch.testing.assert_close(one.by_example, numbers(2 / 4, 2 / 6))
    assert score(-one.chosen, -one.empty, -one.model).value == one.value
    assert one.share == 0.05


def test_a_model_that_does_nothing_has_no_ratio() -> None:
    one = score(numbers(1.0, 2.0), numbers(1.0, 3.0), numbers(1.0, 3.0))
    assert one.value != one.value
    assert one.by_example.isnan().all()
    assert "nan" in str(one)


def test_examples_alike_leave_no_room_for_an_interval() -> None:
    ones = torch.ones(5)
    assert score(0.7 * ones, 0 * ones, ones).interval() == pytest.approx((0.7, 0.7))


def test_the_interval_is_the_spread_of_resampled_ratios() -> None:
    random = torch.Generator().manual_seed(0)
    n = 400
    chosen = 0.8 + 0.2 * torch.randn(n, generator=random)
    one = score(chosen, torch.zeros(n), torch.ones(n))
    low, high = one.interval(0.95, 4000)
    wide = 1.96 * float(chosen.std()) / n**0.5  # the normal approximation of a mean
    assert low == pytest.approx(float(chosen.mean()) - wide, abs=0.003)
    assert high == pytest.approx(float(chosen.mean()) + wide, abs=0.003)
    assert one.interval(seed=1) == one.interval(seed=1) != one.interval(seed=2)


def test_it_says_what_it_is() -> None:
    ones = torch.ones(5)
    said = str(score(0.7 * ones, 0 * ones, ones))
    assert said == "faithfulness 0.700 (0.700 to 0.700) of 3 nodes: 5.0% of 60 active units; 5 examples"
    alone = CircuitScore("completeness", numbers(1.0), numbers(0.0), numbers(1.0), 1, 1, 1, 1)
    assert str(alone).endswith(" of 1 node, 1 edge: 100.0% of 1 active unit; 1 example")
    edges = CircuitScore("completeness", numbers(0.0), numbers(0.0), numbers(1.0), 3, 1200, 0, 0)
    assert "3 nodes, 1,200 edges: 0.0%" in repr(edges)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a score of \[1, 2\] examples"):
        score(numbers(1.0), numbers(1.0), numbers(1.0, 2.0))
    with pytest.raises(ValueError, match="at least one"):
        score(numbers(), numbers(), numbers())
    with pytest.raises(ValueError, match=r"level=1\.0"):
        score(numbers(1.0), numbers(0.0), numbers(1.0)).interval(1.0)
