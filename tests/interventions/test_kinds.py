"""Interventions are plain data that refuses what makes no sense."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from whence.interventions.kinds import ablate, patch, set_value, steer
from whence.results.keys import Node

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "source for zero": (lambda: ablate("1.mlp", source="x"), "zero takes no source"),
    "both": (lambda: steer("1.mlp", add=1.0, scale=2.0), "one of add= and scale="),
    "neither": (lambda: steer("1.mlp"), "one of add= and scale="),
    "twice": (lambda: patch("1.mlp@3", "x", positions=2), "give one of them"),
    "step": (lambda: ablate("1.mlp", positions=slice(0, 8, 2)), "has a step"),
    "nan": (lambda: steer("1.mlp.feature:3", scale=float("nan")), "holds NaN or infinity"),
    "infinity": (lambda: set_value("1.mlp", torch.tensor([1.0, float("inf")])), "holds NaN or infinity"),
    "key": (lambda: ablate("1.mpl"), "Did you mean '1.mlp'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nonsense_is_refused_with_its_remedy(case: str) -> None:
    make, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_key_and_a_node_mean_the_same() -> None:
    assert ablate("2.attn.head:3@5~1").node == ablate(Node("attn.head", 2, 3, position=5, source=1)).node


def test_an_intervention_says_what_it_does() -> None:
    shown = [repr(one) for one in (ablate("1.mlp", "mean"), set_value("1.mlp.neuron:2", 0.5, positions=slice(3, None)))]
    assert shown == ["mean('1.mlp')", "set('1.mlp.neuron:2', 0.5, positions=slice(3, None, None))"]
