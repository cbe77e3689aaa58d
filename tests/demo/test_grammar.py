import re
from random import Random

import pytest

from whence.demo import grammar, lexicon

PEOPLE_AND_THINGS = {form: noun[0] for noun in (*lexicon.PEOPLE, *lexicon.THINGS) for form in noun}


@pytest.fixture(scope="module")
def training():
    r = Random(5)
    return [grammar.sentence(r) for _ in range(40_000)]


def nouns_before_the_verb(sentence):
    """Return subject and distractors of an agreement sentence, or () for a sentence of another task."""
    found = [PEOPLE_AND_THINGS[word] for word in re.findall(r"[Tt]he (\w+)", sentence) if word in PEOPLE_AND_THINGS]
    return found if sentence.startswith("The ") and len(found) > 1 else []


def test_no_training_sentence_takes_two_hops_from_a_held_out_city(training):
    two_hops = [text for text in training if text.startswith("The capital of the state containing")]
    mentioned = {city for city in grammar.HELD_OUT_CITY.values() for text in two_hops if city in text.split()}
    assert len(two_hops) > 1000
    assert mentioned == set()


def test_every_held_out_city_occurs_in_one_hop_training_sentences(training):
    spoken = {word.strip(".") for text in training for word in text.split()}
    assert set(grammar.HELD_OUT_CITY.values()) <= spoken


def test_no_training_sentence_has_a_held_out_noun_pair_as_subject_and_distractor(training):
    pairs = {(nouns[0], other) for nouns in map(nouns_before_the_verb, training) for other in nouns[1:]}
    assert len(pairs) > 400
    assert not [pair for pair in pairs if grammar.is_held_out("nouns", *pair)]


def test_no_training_sentence_brings_a_held_out_name_pair_together(training):
    names = set(lexicon.NAMES)
    together = [{word for word in re.findall(r"\w+", text) if word in names} for text in training]
    pairs = {tuple(sorted(found)) for found in together if len(found) == 2}
    assert len(pairs) > 400
    assert not [pair for pair in pairs if grammar.is_held_out("names", *pair)]


def test_held_out_draws_give_only_what_training_never_shows():
    r = Random(0)
    for kind in ("pp", "tpp", "orc", "src", "pporc"):
        nouns = nouns_before_the_verb(grammar.agreement(r, kind, held_out=True).prefix)
        assert all(grammar.is_held_out("nouns", nouns[0], other) for other in nouns[1:])
    assert grammar.two_hop(r, held_out=True).prefix.split()[-2] in grammar.HELD_OUT_CITY.values()
    item = grammar.indirect_object(r, held_out=True)
    assert grammar.is_held_out("names", *sorted((item.answer.strip(), item.wrong.strip())))


def test_about_a_fifth_of_the_pairs_is_held_out():
    pairs = [(a[0], b[0]) for a in lexicon.PEOPLE for b in lexicon.PEOPLE if a != b]
    assert 0.15 < sum(grammar.is_held_out("nouns", *pair) for pair in pairs) / len(pairs) < 0.25


def test_a_city_belongs_to_one_place_only():
    towns = [town for cities in lexicon.STATES.values() for town in cities]
    towns += [town for *cities, _ in lexicon.COUNTRIES.values() for town in cities]
    assert len(set(towns)) == len(towns)


@pytest.mark.parametrize("distractor", [0, 1])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", grammar.AGREEMENT_KINDS)
def test_the_verb_agrees_with_the_subject_and_not_with_the_distractor(kind, number, distractor):
    item = grammar.agreement(Random(1), kind, number=number, distractor=distractor)
    verbs = (*lexicon.BE, *lexicon.INTRANSITIVE)
    assert [item.answer.strip(), item.wrong.strip()] in [[verb[number], verb[1 - number]] for verb in verbs]
    assert item.prefix.split()[1] in {noun[number] for noun in (*lexicon.PEOPLE, *lexicon.THINGS)}


def test_the_indirect_object_is_the_name_that_occurs_once():
    r = Random(2)
    for item in (grammar.indirect_object(r) for _ in range(200)):
        words = re.findall(r"\w+", item.prefix)
        assert (words.count(item.answer.strip()), words.count(item.wrong.strip())) == (1, 2)


def test_a_later_year_is_later():
    r = Random(3)
    assert all(int(item.answer) > int(item.wrong) for item in (grammar.greater_than(r) for _ in range(500)))


def test_a_repeated_list_settles_its_answer():
    r = Random(4)
    for item in (grammar.induction(r) for _ in range(200)):
        first, second = item.text.removeprefix("Repeat the list: ").removesuffix(".").split("; ")
        cut = len(item.prefix.split("; ")[1].split())
        assert first == second
        assert item.answer.strip() == first.split()[cut]
        assert first.split().count(first.split()[cut - 1]) == 1


def test_facts_are_told_as_the_word_lists_have_them():
    r = Random(6)
    for item in (grammar.two_hop(r) for _ in range(300)):
        city, answer = item.prefix.split()[-2], item.answer.strip()
        place = next(towns for towns in (*lexicon.STATES.values(), *lexicon.COUNTRIES.values()) if city in towns)
        assert answer == place[-1 if item.prefix.startswith("People") else 0]


def test_task_shares_are_percents():
    assert sum(grammar.TASKS.values()) == 100


def test_the_same_seed_gives_the_same_sentences():
    assert [grammar.sentence(Random(8)) for _ in range(3)] == [grammar.sentence(Random(8)) for _ in range(3)]
