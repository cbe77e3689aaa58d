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


def test_a_topk_without_relu_keeps_the_sign():
    assert Activation("topk", k=2, relu=False)(torch.tensor([3.0, -1.0, -2.0])).tolist() == [3.0, -1.0, 0.0]


def test_a_jumprelu_keeps_what_exceeds_each_feature_s_threshold():
    own = Activation("jumprelu", threshold=torch.tensor([1.0, 1.0, -2.0]))
    assert own(torch.tensor([[1.5, 1.0, -1.0]])).tolist() == [[1.5, 0.0, 0.0]]
    signed = Activation("jumprelu", threshold=own.threshold, relu=False)
    assert signed(torch.tensor([[1.5, 1.0, -1.0]])).tolist() == [[1.5, 0.0, -1.0]]


def test_a_batchtopk_s_threshold_is_one_for_all():
    own = Activation("batchtopk", threshold=torch.tensor(0.5))
    assert own(torch.tensor([0.6, 0.5, 2.0])).tolist() == [torch.tensor(0.6).item(), 0.0, 2.0]


def test_a_groupmax_keeps_the_largest_of_each_group():
    assert Activation("groupmax", k=2)(torch.tensor([1.0, 3.0, -1.0, -2.0])).tolist() == [0.0, 3.0, 0.0, 0.0]


def test_activations_are_equal_when_their_thresholds_are():
    one, same, other = (Activation("jumprelu", threshold=torch.tensor(t)) for t in ([1.0], [1.0], [2.0]))
    assert one == same
    assert one != other
    assert len({one, same}) == 1


@pytest.mark.parametrize(("kind", "threshold"), [("jumprelu", None), ("relu", torch.zeros(2))])
def test_a_threshold_is_asked_for_by_the_kinds_that_have_one(kind, threshold):
    with pytest.raises(ValueError, match="give threshold for"):
        Activation(kind, threshold=threshold)


def test_a_relu_that_is_none_is_refused():
    with pytest.raises(ValueError, match="relu is True"):
        Activation("relu", relu=False)
