import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from targets.tiny import JOHN, MARY, WORDS, byte_level, metaspace
from whence.model.tokens import token_id, token_text, tokens_text

V = len(WORDS) + 3


def wordpiece():
    words = ["[UNK]", "[CLS]", "mary", "##ing", ".", "walk"]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]")


def legacy_sentencepiece():
    """As Llama 2: a ▁ goes before the text and for every space, so " Mary" starts with two."""
    vocab = [("<unk>", 0.0), ("▁Mary", -1.0), ("▁", -2.0), ("y", -3.0), ("<0xC3>", -9.0), ("<0xA9>", -9.0)]
    made = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


class PythonTokenizer:
    """What some tokenizers written in Python do with an id they do not have: name it unknown, or raise."""

    unk_token, unk_token_id, all_special_ids = "<unk>", 0, (0,)

    def __init__(self, error=None):
        self.error = error

    def convert_ids_to_tokens(self, id):
        if self.error:
            raise self.error
        return "<unk>"


@pytest.mark.parametrize("prepend", ["never", "first", "always"])
def test_a_text_with_its_space_names_its_token_and_the_token_gives_the_text_back(prepend):
    tokenizer = metaspace(prepend)
    assert token_id(tokenizer, V, " Mary") == MARY
    assert token_text(tokenizer, MARY) == " Mary"


def test_every_byte_level_token_of_whole_characters_round_trips():
    tokenizer = byte_level()
    texts = tokens_text(tokenizer, range(len(tokenizer)))
    whole = [id for id, text in enumerate(texts) if "\N{REPLACEMENT CHARACTER}" not in text]
    assert len(whole) > 100
    assert [token_id(tokenizer, 264, texts[id]) for id in whole] == whole


def test_part_of_a_character_has_a_text_of_its_own():
    tokenizer = byte_level()
    ids = tokenizer.encode("é", add_special_tokens=False)
    assert tokens_text(tokenizer, ids) == ("\N{REPLACEMENT CHARACTER}",) * 2


def test_texts_of_a_prompt_join_to_the_prompt():
    prompt = "Mary Mississippi John."
    for tokenizer in (metaspace(), byte_level()):
        assert "".join(tokens_text(tokenizer, tokenizer.encode(prompt, add_special_tokens=False))) == prompt


def test_a_space_alone_and_a_piece_without_a_space_keep_their_texts():
    assert tokens_text(metaspace("first"), [WORDS.index("▁"), WORDS.index("iss")]) == (" ", "iss")


def test_wordpiece_texts_lose_their_marks_and_special_tokens_gain_no_space():
    assert tokens_text(wordpiece(), [1, 2, 3]) == ("[CLS]", " mary", "ing")


def test_bytes_that_would_join_with_their_own_copy_keep_their_text():
    # Bytes 80 C2: no character alone, but C2 80 in the middle of the doubled token is one.
    made = Tokenizer(models.WordLevel({"<unk>": 0, "\u0122\u00c2": 1}, unk_token="<unk>"))
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert token_text(tokenizer, 1) == "\N{REPLACEMENT CHARACTER}" * 2


def test_a_token_that_adds_no_text_shows_its_vocabulary_entry():
    made = Tokenizer(models.WordLevel({"<unk>": 0, "@@": 1}, unk_token="<unk>"))
    made.decoder = decoders.Sequence([decoders.Replace("@@", ""), decoders.Fuse()])
    assert token_text(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>"), 1) == "@@"


def test_texts_come_from_a_tensor_too():
    assert tokens_text(metaspace(), torch.tensor([MARY, JOHN])) == (" Mary", " John")


def test_a_special_token_is_one_token():
    assert token_id(metaspace(), V, "<bos>") == WORDS.index("<bos>")
    assert token_text(metaspace(), WORDS.index("<bos>")) == "<bos>"


def test_the_unknown_token_can_be_named_by_its_own_text_only():
    assert token_id(metaspace(), V, "<unk>") == 0
    assert token_id(byte_level(), 264, "<|end|>") == 0
    with pytest.raises(ValueError, match=re.escape("'zebra' is not in the vocabulary (it becomes '<unk>'). Give one")):
        token_id(metaspace(), V, "zebra")


def test_an_unknown_word_whose_spaced_form_is_a_token_gets_that_advice():
    with pytest.raises(
        ValueError, match=re.escape("'John' is not in the vocabulary (it becomes '<unk>'). Did you mean ' John'?")
    ):
        token_id(metaspace(), V, "John")


def test_several_tokens_are_refused_with_the_split_and_an_example():
    split = "' Mississippi' is 3 tokens here: ' Miss' | 'iss' | 'ippi'. Give one token (e.g. ' Miss') or an id."
    with pytest.raises(ValueError, match=re.escape(split)):
        token_id(metaspace(), V, " Mississippi")


def test_a_long_text_is_quoted_in_part():
    with pytest.raises(
        ValueError, match=re.escape("is 9 tokens here: '.' | '.' | '.' | '.' | '.' | '.' | '.' | '.' | …. Give")
    ):
        token_id(metaspace(), V, "." * 9)


def test_a_space_too_few_is_pointed_out():
    with pytest.raises(ValueError, match=re.escape("'Mary' is 2 tokens here: 'Ma' | 'ry'. Did you mean ' Mary'?")):
        token_id(byte_level(), 264, "Mary")


def test_a_space_too_many_is_pointed_out():
    with pytest.raises(ValueError, match=re.escape("' Mary' is 2 tokens here: ' ' | ' Mary'. Did you mean 'Mary'?")):
        token_id(legacy_sentencepiece(), 6, " Mary")


def test_a_piece_that_only_follows_other_text_is_offered_by_its_id():
    words = ["<unk>", "<bos>", ".", "▁Mary"]
    message = "'.' is 2 tokens here: '<unk>' | '.'. Inside a text it is one token: give its id, 2."
    with pytest.raises(ValueError, match=re.escape(message)):
        token_id(metaspace("first", words), 4, ".")


def test_neither_a_space_nor_the_unknown_token_is_advised():
    with pytest.raises(
        ValueError, match=re.escape("' zebra' is 2 tokens here: ' ' | '<unk>'. Give one token or an id.")
    ):
        token_id(metaspace(), V, " zebra")


def test_no_example_is_given_when_no_piece_stands_alone():
    with pytest.raises(
        ValueError,
        match=re.escape(
            "'é' is 2 tokens here: '\N{REPLACEMENT CHARACTER}' | '\N{REPLACEMENT CHARACTER}'. Give one token or an id."
        ),
    ):
        token_id(byte_level(), 264, "é")


def test_empty_text_and_text_of_no_token_are_refused():
    with pytest.raises(ValueError, match="'' is an empty string, not a token"):
        token_id(metaspace(), V, "")
    with pytest.raises(ValueError, match=re.escape("' ' is 0 tokens here. Give one token or an id.")):
        token_id(wordpiece(), 6, " ")


def test_a_token_past_the_models_logits_is_refused():
    with pytest.raises(ValueError, match="' Mary': token id 2 is outside 0 to 1: the model has 2 logits"):
        token_id(metaspace(), 2, " Mary")


@pytest.mark.parametrize("token", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3).short()])
def test_any_integer_is_an_id(token):
    id = token_id(None, 4, token)
    assert (id, type(id)) == (3, int)


@pytest.mark.parametrize("token", [-1, 50257, np.int64(50257), torch.tensor(-1)])
def test_an_id_out_of_range_is_refused_with_the_range(token):
    with pytest.raises(ValueError, match=f"token id {int(token)} is outside 0 to 50256: the model has 50257 logits"):
        token_id(None, 50257, token)


@pytest.mark.parametrize("token", [True, False, torch.tensor(True)])
def test_a_boolean_is_not_an_id(token):
    with pytest.raises(TypeError, match="a token is a string or an integer id, not the boolean"):
        token_id(None, 5, token)


@pytest.mark.parametrize("token", [torch.tensor(1.0), torch.tensor([1, 2]), np.array([1])])
def test_what_is_not_one_integer_is_refused(token):
    with pytest.raises(TypeError, match="a token is a string or an integer id; got"):
        token_id(None, 5, token)


def test_without_a_tokenizer_ids_work_and_texts_are_refused():
    assert token_id(None, 5, 4) == 4
    assert tokens_text(None, [4, 300]) == ("4", "300")
    with pytest.raises(
        ValueError, match="no tokenizer to look up ' Mary' with: give token ids, or the model a tokenizer"
    ):
        token_id(None, 5, " Mary")


@pytest.mark.parametrize("id", [V - 1, 2**40, -1])
def test_an_id_the_tokenizer_does_not_have_still_has_a_text(id):
    assert token_text(metaspace(), id) == f"<id {id}>"
    assert token_text(byte_level(), id + 1000 if id == V - 1 else id).startswith("<id ")


@pytest.mark.parametrize("error", [None, IndexError(), KeyError()])
def test_a_tokenizer_in_python_may_fail_in_its_own_way_on_such_an_id(error):
    assert token_text(PythonTokenizer(error), 50300) == "<id 50300>"


def test_the_unknown_token_itself_keeps_its_name():
    assert token_text(PythonTokenizer(), 0) == "<unk>"
