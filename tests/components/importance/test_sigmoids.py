import math

import pytest
import torch

from whence.components.importance.sigmoids import SIGMOIDS, importance_of

X = torch.linspace(-2.0, 3.0, 101, dtype=torch.float64)


@pytest.mark.parametrize("name", SIGMOIDS)
def test_importances_lie_between_0_and_1_and_rise(name):
    found = importance_of(X, name)
    assert 0 <= found.min() <= 0.2
    assert 0.8 <= found.max() <= 1
    assert found[0] < 0.5 < found[-1]


@pytest.mark.parametrize("name", ["leaky_hard", "hard", "upper_leaky_hard"])
def test_hard_ones_are_the_number_itself_in_between(name):
    wanted = [min(max(float(x), 0.0), 1.0) for x in X]
    assert importance_of(X, name).tolist() == wanted


def test_the_normal_one_is_the_logistic_function():
    wanted = torch.tensor([1 / (1 + math.exp(-float(x))) for x in X], dtype=torch.float64)
    torch.testing.assert_close(importance_of(X, "normal"), wanted, atol=1e-15, rtol=0)


def test_the_swish_one_is_a_sum_of_four_swishes():
    def swish(z, beta):
        return z / (1 + math.exp(-beta * z))

    def wanted(x):
        x = x - 0.5
        sides = swish(x - 0.5, -10) - swish(x, 10) + swish(x + 0.5, 10) - swish(x, -10)
        return min(max(0.5 + sides, 0.0), 1.0)

    expected = torch.tensor([wanted(float(x)) for x in X], dtype=torch.float64)
    torch.testing.assert_close(importance_of(X, "swish_hard"), expected, atol=1e-12, rtol=0)
