from math import log

import pytest
import torch

from whence.demo.decompose_losses import (
    LEAK,
    divergence,
    faithfulness,
    importance,
    minimality,
    routes,
    stochastic,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_stochastic_masks_lie_between_the_importance_and_one(generator):
    least = torch.rand(4, 5, 6, generator=generator)
    masks = stochastic(least, torch.rand(4, 5, 6, generator=generator))
    assert (masks >= least).all()
    assert (masks <= 1).all()
    assert torch.equal(stochastic(least, torch.zeros_like(least)), least)
    assert torch.equal(stochastic(torch.ones(3), torch.rand(3, generator=generator)), torch.ones(3))


def test_the_mean_of_stochastic_masks_is_halfway_to_one(generator):
    chance = torch.rand(200_000, generator=generator)
    assert stochastic(torch.full((200_000,), 0.3), chance).mean().item() == pytest.approx(0.65, abs=2e-3)


@pytest.mark.parametrize(
    ("said", "slope", "passed"),
    [
        (0.4, 2.0, 2.0),
        (0.4, -2.0, -2.0),
        (1.5, 2.0, 0.0),
        (1.5, -2.0, 0.0),
        (-0.5, 2.0, 0.0),  # already 0, and the loss wants it lower
        (-0.5, -2.0, -2.0 * LEAK),  # the loss wants it back
    ],
)
def test_below_zero_an_importance_gets_a_slope_only_upward(said, slope, passed):
    x = torch.tensor([said], requires_grad=True)
    importance(x).backward(torch.tensor([slope]))
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(passed)


def test_minimality_is_the_sum_over_matrices_of_the_mean_over_tokens_of_the_powers(generator):
    said = [torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 5, generator=generator) * 2]
    expected = 0.0
    for x in said:
        for document in range(2):
            for pos in range(3):
                for value in x[document, pos].tolist():
                    leaky = 0.0 if value < 0 else value if value <= 1 else 1 + LEAK * (value - 1)
                    expected += leaky**0.7 / 6
    assert minimality(said, 0.7).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("power", [2.0, 0.5])
def test_minimality_has_a_finite_slope_everywhere_and_still_one_above_one(power):
    x = torch.tensor([-1.0, 0.0, 0.5, 2.0], requires_grad=True)
    minimality([x[None, None]], power).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[0] == 0
    assert x.grad[3] == pytest.approx(LEAK * power * (1 + LEAK) ** (power - 1))


def test_faithfulness_is_the_mean_square_of_all_entries_together(generator):
    deltas = [torch.randn(2, 3, generator=generator), torch.randn(4, 5, generator=generator)]
    entries = [value for delta in deltas for row in delta.tolist() for value in row]
    assert faithfulness(deltas).item() == pytest.approx(sum(v * v for v in entries) / len(entries), rel=1e-6)


def test_divergence_is_the_mean_over_tokens_of_the_textbook_sum(generator):
    ours, truth = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    p, q = truth.softmax(-1), ours.softmax(-1)
    expected = sum(
        p[d, t, v].item() * log(p[d, t, v].item() / q[d, t, v].item())
        for d in range(2)
        for t in range(3)
        for v in range(4)
    )
    assert divergence(ours, truth).item() == pytest.approx(expected / 6, rel=1e-5)
    assert divergence(truth, truth).item() == pytest.approx(0.0, abs=1e-7)


def test_every_token_masks_at_least_one_matrix_and_as_often_many_as_few(generator):
    masked = routes(6, (40, 500), generator).sum(0)
    counts = torch.bincount(masked.flatten(), minlength=7).tolist()
    assert counts[0] == 0
    assert all(count == pytest.approx(20_000 / 6, rel=0.1) for count in counts[1:])


def test_no_matrix_is_masked_more_often_than_another(generator):
    shares = routes(4, (100, 500), generator).float().mean((1, 2))
    assert torch.allclose(shares, torch.full((4,), (1 + 2 + 3 + 4) / 16), atol=0.01)
