"""A plan counts what a graph then has."""

import pytest
import torch

import whence
from families import loaded, prompts
from graphs import transcoders


@pytest.fixture(scope="module")
def planned() -> tuple[whence.GraphPlan, whence.Graph]:
    model = loaded("llama")
    dictionary = transcoders(model)
    plan = whence.plan_graph(model, dictionary, prompts(1))
    return plan, whence.attribution_graph(model, dictionary, prompts(1), torch.tensor([5]))


def test_rows_and_edges_are_those_of_the_graph(planned: tuple[whence.GraphPlan, whence.Graph]) -> None:
    plan, graph = planned
    features = len(graph.selected_features)
    assert plan.rows == plan.active == features
    cells = sum(block.values.numel() for block in graph.weights)
    # A chunk's rows are as wide as its last position sees, and each has its constant; logits are not planned.
    assert 0.5 * cells < plan.bytes_rows / 4 <= cells


def test_fewer_rows_take_less_of_everything() -> None:
    model = loaded("llama")
    every, some = (whence.plan_graph(model, transcoders(model), prompts(1), max_nodes=n) for n in (None, 10))
    assert (some.rows, some.active) == (10, every.active)
    assert some.flops < every.flops
    assert some.bytes_rows < every.bytes_rows


def test_a_longer_prompt_takes_more() -> None:
    model = loaded("llama")
    short, long = (whence.plan_graph(model, transcoders(model), prompts(1, length)) for length in (5, 20))
    assert short.flops < long.flops
    assert short.seconds > 0


def test_a_budget_is_compared_with_the_sum() -> None:
    model = loaded("llama")
    plan = whence.plan_graph(model, transcoders(model), prompts(1), memory="1GB")
    assert plan.fits
    assert "disk" not in str(plan)
    tight = whence.plan_graph(model, transcoders(model), prompts(1), memory=plan.bytes_static + 60_000)
    assert not tight.fits
    assert "disk" in str(tight)


def test_neurons_are_planned_at_their_default_number() -> None:
    plan = whence.plan_graph(loaded("gpt2"), None, prompts(1, 12))
    assert plan.rows == min(2048, plan.active)
