import pytest

from targets.pair_tokenizers import demo
from targets.tiny import byte_level
from whence.targets.pair_words import PairDecoder


def test_text_gives_the_same_tokens_again_also_where_a_character_is_several():
    tokenizer = byte_level()
    ids = tuple(tokenizer("ein Ü, Mary").input_ids)
    row = PairDecoder(tokenizer)(0, ids, tokenizer(" Mary").input_ids[0], None, None, "c")
    assert (row.clean_prefix, row.clean_answer, row.patch_prefix, row.patch_answer) == (
        "ein Ü, Mary",
        " Mary",
        None,
        None,
    )


def test_a_space_that_the_tokenizer_does_not_add_stays():
    tokenizer = byte_level()
    (ids,) = tokenizer([" Mary"]).input_ids
    assert PairDecoder(tokenizer)(0, tuple(ids), 5, tuple(ids), 6, "").patch_prefix == " Mary"


def test_tokens_that_no_text_gives_are_refused_by_the_number_of_their_pair():
    known = demo()("The pilots").input_ids
    with pytest.raises(ValueError, match="pair 7: its tokens read"):
        PairDecoder(demo())(7, tuple(known[1:]), 9, None, None, "")


def test_an_answer_that_no_text_gives_is_refused():
    tokenizer = byte_level()
    prompt, answer = tuple(tokenizer(" Mar").input_ids), tokenizer("y").input_ids[0]
    with pytest.raises(ValueError, match=f"pair 2: 'y' after ' Mar' is not its answer, token {answer}"):
        PairDecoder(tokenizer)(2, prompt, answer, None, None, "")
