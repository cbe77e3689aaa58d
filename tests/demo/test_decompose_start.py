import pytest
import torch

from whence.components.importance.layers import perceptron
from whence.demo.decompose_start import components, network


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(12, 12, generator=generator) * torch.logspace(0, -2, 12)
    return torch.randn(500, 12, generator=generator) @ mixed + 0.5, torch.randn(9, 12, generator=generator)


def missed(x, W, V, U):
    return (x @ W.T - x @ V @ U).square().sum().item()


def test_no_components_of_that_number_miss_less_of_the_outputs(data):
    x, W = data
    V, U = components(x, W, 4)
    best = torch.linalg.svdvals((x @ W.T).double())[4:].square().sum().item()  # Eckart and Young, on the outputs
    assert missed(x, W, V, U) == pytest.approx(best, rel=0.01)


def test_as_many_components_as_outputs_miss_nothing(data):
    x, W = data
    V, U = components(x, W, 9)
    assert torch.allclose(V @ U, W.T, atol=1e-4)


def test_both_ends_of_a_component_are_equally_long(data):
    V, U = components(*data, 5)
    assert torch.allclose(V.norm(dim=0), U.norm(dim=1), rtol=1e-4)


def test_at_the_start_every_component_is_needed_more_or_less(data):
    x, _ = data
    said = perceptron(x, network(x, 16, 7, torch.Generator().manual_seed(0)), "")
    assert said.shape == (500, 7)
    assert said.mean().item() == pytest.approx(1.0, abs=0.3)
    assert (said > 0).float().mean() > 0.95
