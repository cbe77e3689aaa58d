from collections import Counter

import pytest

from targets.pair_tokenizers import demo
from targets.tiny import byte_level
from whence.demo.tokenizer import build_tokenizer, pieces
from whence.targets import pair_templates
from whence.targets.pair_templates import ANSWERS, NOUNS, VERBS, relative_clause_pairs


@pytest.fixture(scope="module")
def every_word():
    """A tokenizer with one token for every word that the sentences can have."""
    forms = [form for word in (*NOUNS, *VERBS) for form in (word, f"{word}s")]
    text = f"The that the {' '.join(forms)}{''.join(word for pair in ANSWERS for word in pair)}"
    found = dict.fromkeys(["<pad>", "<bos>", "<eos>", "<unk>", *pieces(text)])
    return build_tokenizer({piece: number for number, piece in enumerate(found)})


def words(pairs, tokenizer):
    return [row.clean_prefix.split() for row in pairs.text(tokenizer)]


def nouns(pairs, tokenizer):
    return {frozenset((row[1].removesuffix("s"), row[4].removesuffix("s"))) for row in words(pairs, tokenizer)}


def test_prompts_differ_in_the_subject_s_number_alone_and_answers_agree_with_it(every_word):
    singular, plural = ({pair[number] for pair in ANSWERS} for number in (0, 1))
    for row in relative_clause_pairs(every_word, 300).text(every_word):
        clean, patch = row.clean_prefix.split(), row.patch_prefix.split()
        short, long = sorted((clean[1], patch[1]), key=len)
        assert (long, clean[2:]) == (f"{short}s", patch[2:])
        assert row.clean_answer in (plural if clean[1].endswith("s") else singular)
        assert (row.clean_answer, row.patch_answer) in {*ANSWERS, *(pair[::-1] for pair in ANSWERS)}


def test_the_verb_inside_agrees_with_the_noun_inside(every_word):
    for row in words(relative_clause_pairs(every_word, 300), every_word):
        assert row[4].endswith("s") != row[5].endswith("s")


def test_cases_say_the_numbers_of_subject_and_noun(every_word):
    pairs = relative_clause_pairs(every_word, 64)
    for case, row in zip(pairs.cases, words(pairs, every_word), strict=True):
        assert case == "_".join("plural" if row[i].endswith("s") else "singular" for i in (1, 4))


def test_cases_and_answers_are_equally_frequent(every_word):
    pairs = relative_clause_pairs(every_word, 320)
    assert {*Counter(zip(pairs.cases, pairs.clean_answers, strict=True)).values()} == {20}


def test_positions_are_named_as_in_the_published_structure(every_word):
    pairs = relative_clause_pairs(every_word, 3)
    assert pairs.order == ("<bos>", "The", "subject", "that", "the", "noun", "verb")
    assert {*pairs.slots} == {pairs.order}


def test_no_two_pairs_are_alike(every_word):
    pairs = relative_clause_pairs(every_word, 3000)
    assert len({*zip(pairs.clean, pairs.clean_answers, strict=True)}) == 3000


def test_the_splits_share_no_two_nouns_in_either_order(every_word):
    train = nouns(relative_clause_pairs(every_word, 2500, split="train"), every_word)
    test = nouns(relative_clause_pairs(every_word, 2500, split="test"), every_word)
    assert len(train) > 1000
    assert len(test) > 200
    assert not train & test


def test_the_seed_settles_the_pairs(every_word):
    same = [relative_clause_pairs(every_word, 50, seed=3).clean for _ in range(2)]
    assert same[0] == same[1] != relative_clause_pairs(every_word, 50, seed=4).clean


def test_sentences_that_the_tokenizer_cannot_use_are_passed_over_and_counted():
    pairs = relative_clause_pairs(demo(), 40)
    assert len(pairs) == 40
    assert pairs.dropped["unknown word"] > 0
    assert pairs.source == "relative clauses (train, seed 0)"


def test_more_than_the_tokenizer_can_use_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(pair_templates, "NOUNS", ["pilot", "guard", "harp", "author"])
    monkeypatch.setattr(pair_templates, "VERBS", ["like"])
    with pytest.raises(ValueError, match=r"asked for 100 pairs, but .* can use \d+ sentences of the split 'train'"):
        relative_clause_pairs(demo(), 100)


def test_a_tokenizer_whose_singulars_and_plurals_differ_in_length_can_use_none(monkeypatch):
    monkeypatch.setattr(pair_templates, "VERBS", ["like"])
    with pytest.raises(ValueError, match=r"can use 0 sentences.*dropped: prompts differ in length \(\d+\)"):
        relative_clause_pairs(byte_level(), 1, split="test")


@pytest.mark.parametrize(("split", "n"), [("validation", 5), ("train", 0)])
def test_an_unknown_split_and_no_pairs_are_refused(every_word, split, n):
    with pytest.raises((ValueError, TypeError), match="split"):
        relative_clause_pairs(every_word, n, split=split)
