from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from targets.tiny import TinyReadout
from whence.targets.choosing import choose, salient_ids


def brute_force(probabilities, max_n, desired):
    """Try every count from one up, by exact fractions; ties in the order of ids."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    exact = [Fraction(p) for p in probabilities]
    for n in range(1, min(max_n, len(order)) + 1):
        if sum(exact[i] for i in order[:n]) >= Fraction(desired):
            return order[:n]
    return order[:max_n]


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12, unique=True),
    max_n=st.integers(1, 14),
    desired=st.floats(0.01, 1.0),
)
def test_salient_tokens_are_the_fewest_that_reach_the_probability(logits, max_n, desired):
    probabilities = torch.tensor(logits).softmax(0)
    found = salient_ids(probabilities, max_n, desired)
    expected = brute_force(probabilities.tolist(), max_n, desired)
    assert len(found) == len(expected)
    assert probabilities[found].tolist() == probabilities[expected].tolist()


def test_reaching_the_probability_exactly_is_enough():
    assert salient_ids(torch.tensor([0.25, 0.5, 0.25]), 10, 0.5) == [1]
    assert salient_ids(torch.tensor([0.125, 0.5, 0.25, 0.125]), 10, 0.75) == [1, 2]


def test_all_tokens_are_taken_when_the_whole_probability_is_asked_for():
    assert sorted(salient_ids(torch.tensor([0.25, 0.5, 0.25]), 10, 1.0)) == [0, 1, 2]


def test_the_number_of_tokens_has_the_last_word():
    assert len(salient_ids(torch.full((8,), 0.125), 3, 0.99)) == 3


def test_a_sum_that_only_rounds_to_the_probability_does_not_reach_it():
    probabilities = torch.tensor([0.5, 0.5 - 2**-25, 2**-25])
    assert probabilities[:2].sum() == 1
    assert salient_ids(probabilities, 10, 1.0) == [0, 1, 2]


def test_rows_are_asked_for_once_and_only_those_chosen():
    model, asked = TinyReadout(), []
    lookup = model.unembedding
    model.unembedding = lambda ids: asked.append(ids.tolist()) or lookup(ids)
    chosen = choose(torch.tensor([5, 1]), model, torch.full((16,), 1 / 16), 10, 0.95)
    assert asked == [[5, 1]]
    assert torch.equal(chosen.vectors, model.rows[[5, 1]])
