from typing import Any

import pytest
import torch
from torch import Tensor

from targets.tiny import TinyReadout, metaspace
from whence.results.keys import Node
from whence.targets.specs import (
    ActivationTarget,
    activation,
    kl_divergence,
    log_probability,
    logit_difference,
    metric,
    probability,
)

MODEL = TinyReadout(metaspace())
LOGITS = torch.randn(2, 3, MODEL.vocab_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("token", [" Mary", 2])
def test_probability_and_its_logarithm_are_functions_of_the_logits(token: Any) -> None:
    label, function = probability(token).labelled(MODEL)
    assert label == "p(' Mary')"
    assert torch.allclose(function(LOGITS), LOGITS.softmax(-1)[..., 2])
    label, function = log_probability(token).labelled(MODEL)
    assert label == "log p(' Mary')"
    assert torch.allclose(function(LOGITS), LOGITS.log_softmax(-1)[..., 2])


@pytest.mark.parametrize(("token", "message"), [(" Paris", "Paris"), (99, "99 is outside")])
def test_a_token_that_the_model_lacks_is_refused_by_name(token: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probability(token).labelled(MODEL)


def test_the_divergence_is_that_of_the_reference_from_the_model() -> None:
    reference = torch.randn(MODEL.vocab_size, generator=torch.Generator().manual_seed(1))
    label, function = kl_divergence(reference).labelled(MODEL)
    p = reference.softmax(-1)
    assert torch.allclose(function(LOGITS), (p * (p.log() - LOGITS.log_softmax(-1))).sum(-1), atol=1e-6)
    assert "reference" in label


def test_a_token_that_the_reference_rules_out_adds_nothing_and_has_a_finite_gradient() -> None:
    reference = torch.zeros(MODEL.vocab_size)
    reference[3:] = -float("inf")
    _, function = kl_divergence(reference).labelled(MODEL)
    leaf = LOGITS.clone().requires_grad_()
    value = function(leaf)
    assert torch.allclose(value, -(3.0 * torch.ones(2, 3)).log() - LOGITS.log_softmax(-1)[..., :3].mean(-1), atol=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert torch.allclose(gradient, LOGITS.softmax(-1) - reference.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reference_that_is_no_distribution_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"NaN or \+inf"):
        kl_divergence(torch.tensor([0.0, bad]))
    with pytest.raises(ValueError, match="no finite one"):
        kl_divergence(torch.full((4,), -float("inf")))
    with pytest.raises(ValueError, match=r"shape \(4,\); the model's have \(16,\)"):
        kl_divergence(torch.zeros(4)).labelled(MODEL)


def test_a_metric_is_applied_position_by_position_under_its_name() -> None:
    def margin(logits: Tensor) -> Tensor:
        assert logits.shape == (MODEL.vocab_size,)
        return logits[1] - logits[2]

    label, function = metric(margin).labelled(MODEL)
    assert label == "margin"
    assert torch.equal(function(LOGITS), LOGITS[..., 1] - LOGITS[..., 2])
    assert metric(margin, "gap").labelled(MODEL)[0] == "gap"


def test_a_logit_difference_pairs_answers_with_foils() -> None:
    difference = logit_difference(" Mary", " John")
    assert (difference.answers, difference.foils) == (" Mary", " John")
    with pytest.raises(ValueError, match="a list of 2 answers against a list of 1 foil; give one foil for each"):
        logit_difference([1, 2], [3])
    with pytest.raises(ValueError, match="a list of 2 answers against a single foil; give one foil for each"):
        logit_difference([1, 2], 3)
    with pytest.raises(ValueError, match="empty lists"):
        logit_difference([], [])


@pytest.mark.parametrize(
    "key",
    ["3.mlp.neuron:17", "3.mlp.neuron:17.up", "3.mlp.feature:2", "3.resid_post.feature:2", Node("mlp.neuron", 3, 1)],
)
def test_an_activation_names_a_neuron_or_a_feature(key: Any) -> None:
    target = activation(key)
    assert isinstance(target, ActivationTarget)
    assert str(target.node) == str(key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("3.attn.head:1", "has no pre-activation; name a neuron"),
        ("3.mlp", "has no pre-activation"),
        ("3.mlp.neuron:1@4", "leave '@4' out and pass position="),
        ("3.mlp.neurn:1", "Did you mean '3.mlp.neuron:1'"),
    ],
)
def test_anything_else_has_no_activation(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        activation(key)
