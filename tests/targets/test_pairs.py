import dataclasses

import numpy as np
import pytest
import torch

from targets.pair_tokenizers import demo
from targets.tiny import byte_level
from whence.model.batch import token_rows
from whence.targets.pair_files import load_pairs
from whence.targets.pairs import Pairs

CLEAN = ["The pilots", "The pilot near the guards", "The guard", "The clerk near the guard"]
PATCH = ["The pilot", "The pilots near the guards", "The guards", "The clerks near the guard"]
ANSWERS, OTHERS = [" are", " is", " is", " has"], [" is", " are", " are", " have"]
CASES = ["plural", "singular_plural", "singular", "singular_singular"]


@pytest.fixture
def pairs():
    return Pairs.from_texts(demo(), CLEAN, PATCH, ANSWERS, OTHERS, cases=CASES, slots="index")


def parts(pairs):
    return {part.name: getattr(pairs, part.name) for part in dataclasses.fields(pairs)}


def test_prompts_are_the_tokens_that_a_model_would_be_given(pairs):
    assert [list(prompt) for prompt in pairs.clean] == token_rows(CLEAN, demo())
    assert [list(prompt) for prompt in pairs.patch] == token_rows(PATCH, demo())


def test_answers_are_the_tokens_that_follow_their_prompts(pairs):
    whole = token_rows([prompt + answer for prompt, answer in zip(PATCH, OTHERS, strict=True)], demo())
    assert [*pairs.patch_answers] == [row[-1] for row in whole]
    assert demo().convert_ids_to_tokens(pairs.clean_answers) == ["▁are", "▁is", "▁is", "▁has"]


def test_pairs_of_different_lengths_stand_side_by_side(pairs):
    assert pairs.lengths == (3, 6, 3, 6)
    assert pairs.order == ("0", "1", "2", "3", "4", "5")
    assert pairs.slots[0] == ("0", "1", "2")


def test_a_selection_is_the_same_rows_of_every_part(pairs):
    chosen = pairs[[2, 0, -1]]
    for name in ("clean", "patch", "clean_answers", "patch_answers", "cases", "slots"):
        assert getattr(chosen, name) == tuple(getattr(pairs, name)[i] for i in (2, 0, 3))
    assert parts(pairs[1:3]) == parts(pairs[[1, 2]])


@pytest.mark.parametrize("numbers", [np.array([1, 3]), torch.tensor([1, 3]), range(1, 4, 2)])
def test_numbers_of_any_library_select(pairs, numbers):
    assert pairs[numbers].clean == pairs[[1, 3]].clean


def test_a_selection_leaves_the_original_alone(pairs):
    before = parts(pairs)
    pairs[:1], pairs.sample(2, 0), pairs.where(case="plural"), pairs.by_length()
    assert parts(pairs) == before


@pytest.mark.parametrize("which", [[True, False, True, True], torch.tensor([True, False, True, True])])
def test_truth_values_do_not_select(pairs, which):
    with pytest.raises(TypeError, match=r"one is pairs\[3:4\]"):
        pairs[which]


def test_a_number_beyond_the_pairs_is_named(pairs):
    with pytest.raises(IndexError, match="there is no pair 4; these are pairs 0 to 3"):
        pairs[[4]]


def test_an_empty_selection_is_refused(pairs):
    with pytest.raises(ValueError, match="there are no pairs"):
        pairs[4:]


def test_a_sample_is_drawn_by_its_seed_without_repetition(pairs):
    draws = [pairs.sample(3, seed).clean for seed in (5, 5, *range(20))]
    assert draws[0] == draws[1]
    assert len({*draws}) > 5
    assert all(len({*draw}) == 3 and {*draw} <= {*pairs.clean} for draw in draws)


@pytest.mark.parametrize("n", [0, 5])
def test_a_sample_of_more_than_there_are_names_both_numbers(pairs, n):
    with pytest.raises(ValueError, match=f"cannot draw {n} pairs from 4"):
        pairs.sample(n)


def test_a_case_selects_its_pairs(pairs):
    assert pairs.where(case="singular_plural").clean == pairs[[1]].clean


def test_an_unknown_case_is_refused_with_the_known_ones(pairs):
    with pytest.raises(
        ValueError, match=r"no pair is of the case 'x'; there are 'plural', 'singular', 'singular_plural'"
    ):
        pairs.where(case="x")


def test_lengths_split_the_pairs_shortest_first(pairs):
    split = pairs.by_length()
    assert [(length, part.clean) for length, part in split.items()] == [
        (3, (pairs.clean[0], pairs.clean[2])),
        (6, (pairs.clean[1], pairs.clean[3])),
    ]


def test_pairs_need_no_tokenizer_no_cases_and_no_patch_side():
    pairs = Pairs(((3, 4), (5,)), None, (1, 2), None)
    assert pairs.cases == ("", "")
    assert pairs[1:].patch is None
    assert pairs[1:].slots is None


def test_a_single_prompt_may_still_have_two_answers():
    pairs = Pairs.from_texts(demo(), ["The pilots"], None, [" are"], [" is"])
    assert pairs.patch is None
    assert demo().convert_ids_to_tokens(pairs.patch_answers) == ["▁is"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean": ()}, "there are no pairs"),
        ({"clean": ((0, 5), ())}, "pair 1 has a clean prompt without tokens"),
        ({"patch": ((0, 6),)}, "patch has 1 entries for 2 pairs"),
        ({"patch": ((0, 6), (0, 8, 9))}, "pair 1 has 2 clean and 3 patch tokens"),
        ({"clean_answers": (1,)}, "clean_answers has 1 entries for 2 pairs"),
        ({"patch_answers": (1, 2, 3)}, "patch_answers has 3 entries"),
        ({"cases": ("a",)}, "cases has 1 entries"),
        ({"slots": (("a", "b"),)}, "slots has 1 entries"),
        ({"slots": (("a", "b"), ("a",))}, "pair 1 has 2 tokens and 1 slots"),
        ({"slots": (("a", "b"), ("a", "c"))}, r"pair 1 has slots \['c'\], which are not in order"),
        ({"order": ("a", "a")}, "names a slot twice"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    good = {"clean": ((0, 5), (0, 7)), "patch": ((0, 6), (0, 8)), "clean_answers": (1, 1), "patch_answers": (2, 2)}
    with pytest.raises(ValueError, match=message):
        Pairs(**{**good, "order": ("a", "b"), **change})


def test_one_unusable_text_is_refused_by_its_number():
    with pytest.raises(ValueError, match=r"pair 1 cannot be used: unknown word: .*'The xylophones'"):
        Pairs.from_texts(demo(), [*CLEAN[:1], "The xylophones"], None, [" are", " are"])


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="patch_answers has 1 entries for 4 pairs"):
        Pairs.from_texts(demo(), CLEAN, PATCH, ANSWERS, OTHERS[:1])


def test_text_is_what_the_pairs_were_made_of(pairs):
    rows = pairs.text(demo())
    assert [(row.clean_prefix, row.clean_answer) for row in rows] == list(zip(CLEAN, ANSWERS, strict=True))
    assert [(row.patch_prefix, row.patch_answer, row.case) for row in rows] == list(
        zip(PATCH, OTHERS, CASES, strict=True)
    )


@pytest.mark.parametrize("patched", [True, False])
def test_a_written_file_gives_the_same_pairs_again(patched, tmp_path):
    sides = (CLEAN, PATCH, ANSWERS, OTHERS) if patched else (CLEAN, None, ANSWERS, None)
    pairs = Pairs.from_texts(demo(), *sides, cases=CASES, slots="index")
    pairs.to_json_lines(tmp_path / "pairs.json", demo())
    again = load_pairs(tmp_path / "pairs.json", demo(), slots="index")
    assert parts(again) == parts(pairs) | {"source": "pairs.json"}


def test_characters_of_several_tokens_survive_a_file(tmp_path):
    pairs = Pairs.from_texts(byte_level(), [" Mary né"], [" Mary nö"], [" "], ["y"], cases=["é"])
    pairs.to_json_lines(tmp_path / "pairs.json", byte_level())
    assert parts(load_pairs(tmp_path / "pairs.json", byte_level())) == parts(pairs) | {"source": "pairs.json"}
