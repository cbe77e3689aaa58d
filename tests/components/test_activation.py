import pytest
import torch

from whence.components.activation import Activation


def test_relu_keeps_every_positive_value():
    assert Activation("relu")(torch.tensor([1.0, -2.0, 0.5])).tolist() == [1.0, 0.0, 0.5]


def test_topk_keeps_the_k_largest_of_each_position():
    pre = torch.tensor([[3.0, 1.0, 2.0], [0.1, 0.3, 0.2]])
    assert Activation("topk", k=2)(pre).tolist() == [[3.0, 0.0, 2.0], [0.0, pre[1, 1].item(), pre[1, 2].item()]]


def test_topk_never_keeps_what_is_not_positive():
    assert Activation("topk", k=2)(torch.tensor([3.0, -1.0, -2.0])).tolist() == [3.0, 0.0, 0.0]


def test_topk_with_room_for_all_is_relu():
    pre = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Activation("topk", k=7)(pre), pre.relu())


@pytest.mark.parametrize(("kind", "k"), [("topk", None), ("relu", 3)])
def test_k_is_asked_for_by_topk_and_by_nothing_else(kind, k):
    with pytest.raises(ValueError, match="give k for 'topk'"):
        Activation(kind, k=k)


def test_k_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Activation("topk", k=0)
