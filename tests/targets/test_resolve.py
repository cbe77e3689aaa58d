from typing import Any

import pytest
import torch

from targets.tiny import AUSTIN, BOSTON, JOHN, MARY, TinyReadout, metaspace
from whence.targets.attribution import AttributionTargets
from whence.targets.custom import CustomTarget
from whence.targets.resolve import DirectionTargets, MetricTargets, MostLikely, TokenTargets, resolve
from whence.targets.specs import activation, log_probability, logit_difference, probability

MODEL = TinyReadout(metaspace())


def ids(targets: Any, foils: Any = None, examples: int = 3, asked: int = 1) -> tuple[Any, Any]:
    """Ids and foils as lists [example][asked][target], axes of size 1 where nothing varies."""
    found = resolve(MODEL, examples, asked, targets, foils)
    assert isinstance(found, TokenTargets)
    return found.ids.tolist(), None if found.foils is None else found.foils.tolist()


@pytest.mark.parametrize("token", [" Mary", MARY, torch.tensor(MARY)])
def test_one_token_serves_every_prompt_and_position(token: Any) -> None:
    assert ids(token) == ([[[MARY]]], None)


def test_a_string_is_one_token_never_its_characters() -> None:
    assert ids(" Mary") == ids([" Mary"])


def test_a_list_is_several_targets_of_every_prompt() -> None:
    assert ids([" Mary", JOHN]) == ([[[MARY, JOHN]]], None)


def test_a_tensor_is_one_token_a_prompt() -> None:
    assert ids(torch.tensor([MARY, JOHN, AUSTIN])) == ([[[MARY]], [[JOHN]], [[AUSTIN]]], None)


def test_two_columns_are_answer_and_foil_when_one_position_is_asked() -> None:
    pairs = torch.tensor([[MARY, JOHN], [AUSTIN, BOSTON]])
    assert ids(pairs, examples=2) == ([[[MARY]], [[AUSTIN]]], [[[JOHN]], [[BOSTON]]])


def test_two_columns_for_two_positions_are_told_apart_by_a_third_axis() -> None:
    tokens = torch.tensor([[MARY, JOHN], [AUSTIN, BOSTON]])
    assert ids(tokens[..., None], examples=2, asked=2) == ([[[MARY], [JOHN]], [[AUSTIN], [BOSTON]]], None)
    pairs = torch.stack([tokens, tokens.flip(1)], dim=-1)
    expected = [[[MARY], [JOHN]], [[AUSTIN], [BOSTON]]], [[[JOHN], [MARY]], [[BOSTON], [AUSTIN]]]
    assert ids(pairs, examples=2, asked=2) == expected
    with pytest.raises(ValueError, match=r"shape \[2, 2\] for two positions could be"):
        ids(tokens, examples=2, asked=2)


def test_one_foil_serves_every_target_and_one_target_every_foil() -> None:
    assert ids([MARY, AUSTIN], " John") == ([[[MARY, AUSTIN]]], [[[JOHN, JOHN]]])
    assert ids(" John", [MARY, AUSTIN]) == ([[[JOHN, JOHN]]], [[[MARY, AUSTIN]]])
    assert ids([MARY, AUSTIN], [JOHN, BOSTON]) == ([[[MARY, AUSTIN]]], [[[JOHN, BOSTON]]])


def test_a_list_against_foils_per_prompt_varies_along_both_axes() -> None:
    found = ids([MARY, AUSTIN], torch.tensor([JOHN, BOSTON, JOHN]))
    assert found == ([[[MARY, AUSTIN]]] * 3, [[[JOHN] * 2], [[BOSTON] * 2], [[JOHN] * 2]])


def test_lists_of_a_logit_difference_are_per_prompt() -> None:
    found = ids(logit_difference([" Mary", AUSTIN], [JOHN, " Boston"]), examples=2)
    assert found == ([[[MARY]], [[AUSTIN]]], [[[JOHN]], [[BOSTON]]])
    assert ids(logit_difference(" Mary", " John")) == ([[[MARY]]], [[[JOHN]]])


def test_nothing_is_the_most_likely_token() -> None:
    assert resolve(MODEL, 3, 1, None) == MostLikely(centered=False)
    assert resolve(MODEL, 3, 1, None, centered=True) == MostLikely(centered=True)


def test_metrics_bare_functions_and_lists_of_them_are_metrics() -> None:
    def margin(logits: torch.Tensor) -> torch.Tensor:
        return logits[0]

    for given, labels in (
        (margin, ("margin",)),
        ([probability(MARY), log_probability(JOHN)], ("p(' Mary')", "log p(' John')")),
    ):
        found = resolve(MODEL, 3, 1, given)
        assert isinstance(found, MetricTargets)
        assert found.labels == labels
        assert len(found.functions) == len(labels)


def test_directions_come_as_triples_targets_or_lists() -> None:
    vec = torch.ones(4)
    chosen = AttributionTargets([("up", 1.0, vec)], model=MODEL, logits=torch.zeros(16))
    cases = [
        (CustomTarget("up", 1.0, vec), ("up",)),
        (("up", 1.0, vec), ("up",)),
        ([("up", 1.0, vec), CustomTarget("down", 0.0, -vec)], ("up", "down")),
        (chosen, ("up",)),
    ]
    for given, labels in cases:
        found = resolve(MODEL, 3, 1, given)
        assert isinstance(found, DirectionTargets)
        assert found.labels == labels
        assert found.vectors.shape == (len(labels), 4)
        assert torch.equal(found.vectors[0], vec)


def test_attribution_targets_that_are_tokens_are_tokens() -> None:
    chosen = AttributionTargets([" Mary", " John"], model=MODEL, logits=torch.zeros(16))
    assert ids(chosen) == ([[[MARY, JOHN]]], None)


def test_an_activation_stays_one() -> None:
    target = activation("1.mlp.neuron:3")
    assert resolve(MODEL, 3, 1, target) is target


@pytest.mark.parametrize(
    ("targets", "foils", "options", "error", "message"),
    [
        ([], None, {}, ValueError, "targets is empty"),
        (" Paris", None, {}, ValueError, "Paris"),
        ([MARY, 2.5], None, {}, TypeError, r"targets\[1\] is float"),
        (MARY, [JOHN, None], {}, TypeError, r"foils\[1\] is NoneType"),
        ({"a": 1}, None, {}, TypeError, "targets is dict"),
        (torch.tensor([0.5]), None, {}, TypeError, "tensor of torch.float32; ids are integers"),
        (torch.tensor([True]), None, {}, TypeError, "tensor of torch.bool"),
        (torch.zeros(2, dtype=torch.long), None, {}, ValueError, r"shape \[2\]; for 3 prompt\(s\)"),
        (torch.zeros(3, 4, dtype=torch.long), None, {}, ValueError, r"\[3\], \[3, 2\] for \(answer, foil\)"),
        (
            torch.zeros(3, 4, dtype=torch.long),
            None,
            {"asked": 2},
            ValueError,
            r"\[3\], \[3, 2\] for a token per position\. For",
        ),
        (torch.zeros(3, 2, 1, dtype=torch.long), None, {}, ValueError, r"shape \[3, 2, 1\]"),
        (torch.tensor([0, 1, 16]), None, {}, ValueError, "16 is outside"),
        (torch.tensor([0, 1, -1]), None, {}, ValueError, "-1 is outside"),
        (MARY, torch.zeros(3, 2, dtype=torch.long), {}, ValueError, "foils is a tensor of shape"),
        ([MARY, JOHN, AUSTIN], [MARY, JOHN], {}, ValueError, "3 targets against 2 foils"),
        (None, JOHN, {}, ValueError, "the most likely token"),
        (probability(MARY), JOHN, {}, ValueError, "a target that is not a token"),
        (activation("1.mlp.neuron:3"), None, {"centered": True}, ValueError, "this target is not a token"),
        (logit_difference(MARY, JOHN), AUSTIN, {}, ValueError, "foils cannot be combined with a logit difference"),
        (logit_difference([MARY], [JOHN]), None, {}, ValueError, r"1 tokens, one per prompt, for 3 prompt\(s\)"),
        (logit_difference(MARY, JOHN), None, {"centered": True}, ValueError, "cannot be combined with foils"),
        (torch.zeros(3, 2, dtype=torch.long), None, {"centered": True}, ValueError, r"\(answer, foil\) pairs"),
        (("up", 1.0, torch.ones(5)), None, {}, ValueError, r"must have shape \(4,\)"),
        ([("up", 1.0, torch.ones(4)), MARY], None, {}, TypeError, r"targets\[0\] is tuple"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    targets: Any, foils: Any, options: dict[str, Any], error: type, message: str
) -> None:
    asked = options.pop("asked", 1)
    with pytest.raises(error, match=message):
        resolve(MODEL, 3, asked, targets, foils, **options)
