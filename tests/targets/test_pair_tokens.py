import pytest
from tokenizers import processors

from targets.pair_tokenizers import demo
from targets.tiny import byte_level, metaspace
from whence.targets.pair_lines import PairText
from whence.targets.pair_tokens import PairEncoder, UnusablePair, tokenizer_of


class Holder:
    """Something with a tokenizer, as a model is."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def reason(encoder, *pair):
    with pytest.raises(UnusablePair) as caught:
        encoder(PairText(*pair))
    assert str(caught.value).startswith(caught.value.reason)
    return caught.value.reason


def test_a_model_s_tokenizer_and_a_tokenizer_are_the_same():
    pair = PairText("The pilots", " are", "The pilot", " is")
    assert PairEncoder(Holder(demo()))(pair) == PairEncoder(demo())(pair)


def test_a_usable_pair_is_its_tokens():
    pair = PairEncoder(demo(), "simple")(PairText("The pilots", " are", "The pilot", " is"))
    assert demo().convert_ids_to_tokens(pair.clean) == ["<bos>", "▁The", "▁pilots"]
    assert demo().convert_ids_to_tokens(pair.patch) == ["<bos>", "▁The", "▁pilot"]
    assert demo().convert_ids_to_tokens([pair.clean_answer, pair.patch_answer]) == ["▁are", "▁is"]
    assert pair.slots == ("<bos>", "The", "subject")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("The xylophones", " are"), "unknown word"),
        (("The pilots", " are", "The xylophone", " is"), "unknown word"),
        (("The pilots", " levitate"), "unknown word"),
        (("The pilots", " are tall"), "answer is not one token"),
        (("The pilots", ""), "answer is not one token"),
        (("The pilots", " are", "The pilot", " are"), "answers are the same"),
        (("The pilots", " are", None, " are"), "answers are the same"),
        (("The pilots", " are", "The pilots", " is"), "prompts are the same"),
        (("The pilots", " are", " The pilots", " is"), "prompts are the same"),
        (("The pilots", " are", "The tall pilot", " is"), "prompts differ in length"),
    ],
)
def test_each_reason_against_a_pair_is_found(pair, expected):
    assert reason(PairEncoder(demo()), *pair) == expected


def test_an_answer_that_merges_with_its_prompt_is_not_one_token():
    encoder = PairEncoder(byte_level())
    assert encoder.tokenizer.tokenize(" Mary") == ["ĠMary"]
    assert len(encoder.tokenizer.tokenize("y")) == 1
    assert reason(encoder, " Mar", "y") == "answer is not one token"


def test_prompts_of_equal_length_whose_words_are_not_do_not_align():
    encoder = PairEncoder(byte_level(), "{one} {two}")
    lengths = [len(encoder.encode(text)) for text in (" Mary xyzw", " xyzw Mary")]
    assert lengths[0] == lengths[1]
    assert reason(encoder, " Mary xyzw", "a", " xyzw Mary", "b") == "slots differ between the prompts"


def test_a_prompt_of_another_form_does_not_fit_the_template():
    assert reason(PairEncoder(demo(), "rc"), "The pilots", " are") == "template does not fit"


def test_a_tokenizer_whose_unknown_token_stands_in_front_knows_its_words():
    tokenizer = byte_level()  # begin, end and unknown are one token in it
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.bos_token_id)]
    )
    encoder = PairEncoder(tokenizer, "{name}")
    assert encoder.front == 1
    assert encoder(PairText(" Mary", " Mary")).slots == ("<bos>", "name")


def test_a_tokenizer_that_ends_texts_is_refused():
    tokenizer = metaspace()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <bos>", special_tokens=[("<bos>", 1)]
    )
    with pytest.raises(ValueError, match="puts special tokens after a text"):
        PairEncoder(tokenizer)


def test_a_model_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="pairs from text need a tokenizer"):
        tokenizer_of(Holder(None))
