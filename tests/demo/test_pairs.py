import subprocess
import sys
from collections import Counter
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from targets.tiny import byte_level
from whence import demo
from whence.demo import grammar, lexicon
from whence.demo.pairs import agreement_pairs

KINDS = tuple(grammar.AGREEMENT_KINDS)
LENGTH = {"simple": 3, "pp": 6, "orc": 7, "src": 7, "tpp": 6, "pporc": 10}
NOUNS = (*lexicon.PEOPLE, *lexicon.THINGS)
NUMBER = {form: number for noun in NOUNS for number, form in enumerate(noun)}
LEMMA = {form: noun[0] for noun in NOUNS for form in noun}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo.model_path())


def rows(pairs, tokenizer):
    return [(row, row.clean_prefix.split(), row.patch_prefix.split()) for row in pairs.text(tokenizer)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_prompts_of_a_kind_have_one_length_and_one_token_a_word(kind, tokenizer):
    pairs = agreement_pairs(tokenizer, kind, 60)
    assert {*pairs.lengths} == {LENGTH[kind]}
    assert pairs.slots == (pairs.order,) * 60
    assert len(pairs.order) == LENGTH[kind]
    assert (pairs.order[0], pairs.order[2]) == ("<bos>", "subject")


@pytest.mark.parametrize("kind", KINDS)
def test_clean_and_patch_differ_only_in_what_agrees_with_the_subject(kind, tokenizer):
    pairs = agreement_pairs(tokenizer, kind, 60)
    for _, clean, patch in rows(pairs, tokenizer):
        changed = [slot for slot, one, other in zip(pairs.order[1:], clean, patch, strict=True) if one != other]
        assert changed == (["subject", "verb"] if kind == "src" else ["subject"])
        assert LEMMA[clean[1]] == LEMMA[patch[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_two_forms_of_one_verb_and_agree_with_their_subjects(kind, tokenizer):
    forms = {tuple(form.split()[0] for form in verb) for verb in (*lexicon.BE, *lexicon.INTRANSITIVE)}
    for row, clean, _ in rows(agreement_pairs(tokenizer, kind, 60), tokenizer):
        answers = (row.clean_answer.strip(), row.patch_answer.strip())
        assert (answers if NUMBER[clean[1]] == 0 else answers[::-1]) in forms


@pytest.mark.parametrize("kind", KINDS)
def test_the_case_is_the_number_of_each_noun_and_cases_are_balanced(kind, tokenizer):
    pairs = agreement_pairs(tokenizer, kind, 80)
    for case, (_, clean, _) in zip(pairs.cases, rows(pairs, tokenizer), strict=True):
        assert case == "_".join(["singular", "plural"][NUMBER[word]] for word in clean if word in NUMBER)
    ends = Counter((case.split("_")[0], case.split("_")[-1]) for case in pairs.cases)
    assert {*ends.values()} == {40 if kind == "simple" else 20}


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "simple"])
def test_held_out_pairs_of_nouns_are_those_that_training_never_showed(kind, held_out, tokenizer):
    for _, clean, _ in rows(agreement_pairs(tokenizer, kind, 60, held_out=held_out), tokenizer):
        subject, *others = (LEMMA[word] for word in clean if word in LEMMA)
        assert {grammar.is_held_out("nouns", subject, other) for other in others} == {held_out}


def test_the_distractor_s_verb_agrees_with_the_distractor(tokenizer):
    for _, clean, _ in rows(agreement_pairs(tokenizer, "orc", 60), tokenizer):
        assert clean[5] in {verb[NUMBER[clean[4]]] for verb in lexicon.TRANSITIVE}


def test_the_seed_settles_the_pairs_and_none_is_twice_there(tokenizer):
    first, second, other = (agreement_pairs(tokenizer, "pp", 200, seed=seed) for seed in (1, 1, 2))
    assert first.clean == second.clean != other.clean
    assert len({*zip(first.clean, first.clean_answers, strict=True)}) == 200


def test_a_longer_list_begins_with_the_shorter_one(tokenizer):
    assert agreement_pairs(tokenizer, "orc", 50)[:20].clean == agreement_pairs(tokenizer, "orc", 20).clean


def test_the_model_prefers_the_clean_answer_on_the_clean_prompt_and_the_other_on_the_patch(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(demo.model_path())
    pairs = agreement_pairs(tokenizer, "orc", 100, held_out=True)
    row = torch.arange(100)
    right = []
    with torch.no_grad():
        for prompts, sign in ((pairs.clean, 1), (pairs.patch, -1)):
            logits = model(torch.tensor(prompts)).logits[:, -1]
            difference = logits[row, list(pairs.clean_answers)] - logits[row, list(pairs.patch_answers)]
            right.append((sign * difference > 0).float().mean().item())
    assert min(right) > 0.9


def test_more_than_there_are_is_refused_with_both_numbers(tokenizer):
    with pytest.raises(ValueError, match=r"asked for 700 pairs of the kind 'simple', but there are only about 600"):
        agreement_pairs(tokenizer, "simple", 700)


def test_drawing_leaves_the_grammar_s_own_draws_alone(tokenizer):
    before = grammar.agreement(Random(3), "orc")
    agreement_pairs(tokenizer, "orc", 5, seed=3)
    assert grammar.agreement(Random(3), "orc") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "rc"}, "kind is 'rc'; the grammar's kinds of agreement are simple, pp, orc, src, tpp, pporc"),
        ({"kind": "simple", "held_out": True}, "no pair of nouns is held out"),
        ({"n": 0}, "n is 0"),
    ],
)
def test_a_request_that_means_nothing_is_refused(arguments, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        agreement_pairs(tokenizer, **arguments)


def test_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="this tokenizer is not the demo's: it cannot use 2 of 2 pairs"):
        agreement_pairs(byte_level(), "orc", 2)


def test_the_demo_offers_its_pairs_without_loading_torch():
    program = "import sys, whence.demo; assert 'torch' not in sys.modules; print(whence.demo.agreement_pairs.__name__)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "agreement_pairs"
    with pytest.raises(AttributeError, match=r"whence\.demo.* has no attribute 'agreements'"):
        demo.agreements  # noqa: B018
