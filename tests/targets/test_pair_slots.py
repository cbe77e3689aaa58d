import pytest

from targets.tiny import byte_level
from whence.targets.pair_slots import TEMPLATES, slots_of, template


def letters(text):
    """One token a character, between which no word boundary is hidden, behind two special tokens."""
    return (-1, -2, *map(ord, text))


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("simple", "The subject"),
        ("nounpp", "The subject preposition the noun"),
        ("within_rc", "The subject that the noun"),
        ("rc", "The subject that the noun verb"),
    ],
)
def test_the_published_structures_have_their_published_slots(name, slots):
    assert template(name).slots == tuple(slots.split())
    assert template(TEMPLATES[name]) == template(name)


def test_every_token_of_a_word_takes_its_slot():
    tokenizer = byte_level()
    assert slots_of("The Mary", lambda text: tuple(tokenizer(text).input_ids), 0, template("simple")) == (
        "The",
        "The",
        "The",
        "subject",
    )


def test_special_tokens_in_front_share_a_slot_and_spaces_belong_to_the_word_after():
    assert slots_of("The ox", letters, 2, template("simple")) == ("<bos>",) * 2 + ("The",) * 3 + ("subject",) * 3


@pytest.mark.parametrize("text", ["The", "The old ox", "An ox", "the ox", ""])
def test_other_prompts_do_not_fit(text):
    assert slots_of(text, letters, 2, template("simple")) is None


def test_a_token_over_two_words_fits_no_template():
    merges = {"The": (1,), "The ox": (2,)}
    assert slots_of("The ox", merges.__getitem__, 0, template("simple")) is None


def test_a_template_of_ones_own_names_its_slots():
    own = template("{who} of the {owner}")
    assert own.slots == ("who", "of", "the", "owner")
    assert own.literals == ("", "of", "the", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rcs", "slots is 'rcs'; it is None, 'index', one of simple, nounpp, within_rc, rc, or a template"),
        ("", "slots is ''"),
        ("The {subject}s", "braces that are not a word of their own"),
        ("The {}", "braces that are not a word of their own"),
        ("the {noun} the {other}", "two slots 'the'"),
        ("the {the}", "two slots 'the'"),
    ],
)
def test_a_template_that_cannot_name_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        template(text)
