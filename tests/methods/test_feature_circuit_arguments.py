"""Arguments of feature_circuit that cannot be meant, and what each refusal says."""

from typing import Any

import pytest
import torch

import whence
from circuit_cases import random_saes, random_transcoders, small
from whence.engine.circuits.checks import counts
from whence.errors import WhenceError
from whence.methods.circuit import feature_circuit
from whence.targets.pairs import Pairs

SAES = random_saes(range(2), {"resid_post": 32})
PAIRS = Pairs(((5, 9, 30), (7, 11, 12)), ((5, 10, 30), (7, 31, 12)), (5, 6), (8, 9))
WIDE = torch.ones(32, dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"node_threshold": -1.0}, r"node_threshold=-1\.0; it is a size that effects must exceed, at least 0"),
        ({"edge_threshold": float("inf")}, "edge_threshold=inf; it is a size"),
        ({"node_threshold": float("nan")}, "node_threshold=nan; it is a size"),
        ({"steps": 0}, "steps=0; it is at least 1"),
        ({"batch_size": 0}, "batch_size=0; it is at least 1"),
        ({"baseline": "none"}, "baseline='none'; it is one of patch, zero, mean, or a tensor"),
        ({"baseline": WIDE}, r"one tensor for 2 sites \(0.resid_post, 1.resid_post\); give a mapping"),
        ({"baseline": {"2.resid_post": WIDE}}, "vectors for 2.resid_post; the circuit's sites are embed, 0.resid_post"),
        ({"baseline": {"1.resid_post": WIDE[:3]}}, r"1.resid_post: give one finite vector of width 32, not \[3\]"),
        ({"baseline": {"1.resid_post": WIDE / 0}}, "1.resid_post: give one finite vector of width 32"),
        ({"clean": []}, "no prompt was given; a circuit needs at least one"),
        ({"clean": Pairs(((5, 9),), None, (99,), None)}, "token id 99"),
        ({"patch": [[5, 10, 30]]}, "clean= is Pairs, which hold their patch prompts; leave patch= out"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        feature_circuit(small("gpt2"), SAES, **({"clean": PAIRS} | settings))


@pytest.mark.parametrize("name", ["steps", "batch_size"])
def test_half_a_step(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}=2\.5; it is a whole number, at least 1"):
        counts(**{name: 2.5})


def test_a_baseline_of_another_type() -> None:
    with pytest.raises(TypeError, match="baseline= is float; it is one of patch, zero, mean, a tensor or a mapping"):
        feature_circuit(small("gpt2"), SAES, PAIRS, baseline=0.0)


def test_a_vector_for_a_transcoder() -> None:
    with pytest.raises(ValueError, match=r"0.mlp: its transcoder reads elsewhere, so no vector tells its features"):
        feature_circuit(small("gpt2"), random_transcoders(range(2), 32), PAIRS, baseline={"0.mlp": WIDE})


@pytest.mark.parametrize(
    ("clean", "patch", "metric", "settings", "message"),
    [
        ([[5, 9]], None, None, {}, "metric=None explains the pairs' own answers, and the prompts have none"),
        ([[5, 9]], None, 3, {"baseline": "patch"}, "baseline='patch' needs patch prompts; give patch="),
        ([[5, 9]], [[5, 9], [6, 9]], 3, {}, "1 clean prompts and 2 patch prompts; give one patch prompt for each"),
        ([[5, 9]], [[5, 9, 3]], 3, {}, "pair 0: the clean prompt has 2 tokens and the patch prompt 3"),
        (
            [[5, 9], [5]],
            None,
            3,
            {"aggregate": "none"},
            r"prompts have lengths \[1, 2\]; give pairs whose positions have",
        ),
    ],
)
def test_prompts_that_do_not_go_together(
    clean: Any, patch: Any, metric: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        feature_circuit(small("gpt2"), SAES, clean, patch, metric, **settings)


@pytest.mark.parametrize(
    ("dictionaries", "kind", "message"),
    [
        (["attn.heads"], ValueError, "names 'attn.heads'; units of the model's own are attn.head, mlp.neuron, attn"),
        (3, TypeError, "dictionaries= is int; it takes dictionaries, sets of them"),
        (
            [*SAES, *SAES[:1]],
            ValueError,
            "a set holds one dictionary a layer",
        ),
        (
            ["attn", "attn.head"],
            ValueError,
            "0.attn.head and 0.attn are units of one place of the model, or of two depths",
        ),
        (random_saes([5], {"resid_post": 32}), ValueError, "5"),
    ],
)
def test_dictionaries_that_do_not_fit(dictionaries: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        feature_circuit(small("gpt2"), dictionaries, PAIRS)


def test_words_that_are_none_of_the_choices() -> None:
    """Types refuse them first where they are checked; the function itself says which there are."""
    from whence.methods import circuit

    given = ("gradient", 1, "midpoint", "sum", 0.1, 0.1, "gradient", "aggregate", 1)
    for place, name in ((0, "method"), (2, "rule"), (3, "aggregate"), (6, "edge_gradient"), (7, "gate")):
        wrong = [*given]
        wrong[place] = "other"
        with pytest.raises(ValueError, match=f"{name}='other'; it is one of "):
            circuit._check(*wrong)


def test_a_baseline_that_is_the_clean_run_has_no_effects() -> None:
    with pytest.raises(
        WhenceError, match=r"no unit has an effect on logit\[.*\] - logit\[.*\]: .*choose another metric or base"
    ):
        feature_circuit(small("gpt2"), SAES, [[5, 9]], [[5, 9]], whence.logit_difference(7, 5))
