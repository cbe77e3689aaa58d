import re

import pytest
import torch

from targets.tiny import AUSTIN, BOSTON, MARY, TEXAS, TinyReadout, metaspace
from whence.targets import AttributionTargets, CustomTarget, concept_direction


@pytest.fixture(scope="module")
def model():
    return TinyReadout(metaspace())


def test_the_direction_is_the_difference_of_the_mean_rows(model):
    target = concept_direction(model, [" Austin", " Boston"], [" Texas"])
    assert isinstance(target, CustomTarget)
    torch.testing.assert_close(target.vec, (model.rows[AUSTIN] + model.rows[BOSTON]) / 2 - model.rows[TEXAS])
    assert target[:2] == ("mean(' Austin', ' Boston') − mean(' Texas')", 1.0)


def test_exchanging_the_sides_turns_the_direction_round(model):
    there, back = (concept_direction(model, *sides).vec for sides in ((" Mary", " John"), (" John", " Mary")))
    assert torch.equal(there, -back)


def test_bare_words_and_ids_are_one_word_each(model):
    target = concept_direction(model, " Austin", TEXAS)
    assert torch.equal(target.vec, model.rows[AUSTIN] - model.rows[TEXAS])
    assert target.token_str == "mean(' Austin') − mean(' Texas')"


def test_ids_work_without_a_tokenizer():
    assert concept_direction(TinyReadout(), [1, 2], 3).token_str == "mean('1', '2') − mean('3')"


def test_name_and_weight_are_the_users(model):
    assert concept_direction(model, " Austin", " Texas", name="city", weight=0.5)[:2] == ("city", 0.5)


def test_a_concept_is_a_target(model):
    concept = concept_direction(model, " Austin", " Texas")
    targets = AttributionTargets([concept], model=model, logits=torch.zeros(16))
    assert (targets.tokens, targets.token_ids) == ([concept.token_str], [16])
    assert torch.equal(targets.logit_vectors[0], concept.vec)


@pytest.mark.parametrize(("a", "b", "side"), [([], " Mary", "words_a"), (" Mary", (), "words_b")])
def test_a_side_without_words_is_refused(model, a, b, side):
    with pytest.raises(ValueError, match=f"{side} is empty: give at least one word"):
        concept_direction(model, a, b)


def test_a_word_on_both_sides_is_refused_however_it_is_written(model):
    message = f"' Mary' (id {MARY}) is in both words_a and words_b"
    with pytest.raises(ValueError, match=re.escape(message)):
        concept_direction(model, [" Austin", " Mary"], [MARY])


def test_a_word_given_twice_on_one_side_is_refused(model):
    with pytest.raises(ValueError, match=re.escape("is twice in words_b: give each token once")):
        concept_direction(model, " Mary", [" Texas", " Texas"])


def test_a_word_of_several_tokens_is_refused_with_the_split(model):
    with pytest.raises(ValueError, match=re.escape("' Miss' | 'iss' | 'ippi'")):
        concept_direction(model, [" Mississippi"], [" Texas"])


def test_a_weight_that_is_not_finite_is_refused(model):
    with pytest.raises(ValueError, match="the concept direction: prob is nan"):
        concept_direction(model, " Austin", " Texas", weight=float("nan"))
