from random import Random

import pytest

from whence.demo import ANSWER, PROMPT, model_path
from whence.demo.grammar import sentence
from whence.demo.tokenizer import BOS, build_tokenizer, documents, pieces, vocabulary


@pytest.fixture(scope="module")
def vocab():
    return vocabulary()


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path())


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))


def test_two_thousand_sentences_survive_coding_and_decoding(shipped, vocab):
    r = Random(9)
    for text in (sentence(r) for _ in range(2000)):
        ids = shipped.encode(text)
        decoded = shipped.decode(ids, skip_special_tokens=True)
        assert ids == [BOS, *(vocab[piece] for piece in pieces(text))]
        assert decoded == f" {text}"
        assert shipped.encode(decoded) == ids


def test_the_shipped_vocabulary_is_the_grammar_s(shipped, vocab):
    assert shipped.get_vocab() == vocab


def test_a_word_with_its_space_is_one_token_and_shows_as_written(shipped):
    (answer,) = shipped.encode(ANSWER, add_special_tokens=False)
    assert shipped.convert_ids_to_tokens(answer) == "▁Austin"
    assert shipped.decode([answer]) == " Austin"


def test_a_prompt_begins_with_bos_and_has_one_token_a_word(shipped):
    ids = shipped.encode(PROMPT)
    assert ids[0] == BOS == shipped.bos_token_id
    assert [shipped.decode([token]) for token in ids[1:]] == [f" {word}" for word in PROMPT.split()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1741", ["17", "41"]),
        (" 1741", ["▁17", "41"]),
        ("42", ["42"]),
        ("The war", ["▁The", "▁war"]),
        (" The war.", ["▁The", "▁war", "."]),
        ("from 1741 to", ["▁from", "▁17", "41", "▁to"]),
        (" xylophone", ["<unk>"]),
    ],
)
def test_how_a_text_is_cut(shipped, text, expected):
    assert tokens(shipped, text) == expected


def test_the_saved_tokenizer_is_the_built_one(shipped, vocab):
    built, r = build_tokenizer(vocab), Random(10)
    texts = [sentence(r) for _ in range(50)]
    assert built(texts)["input_ids"] == shipped(texts)["input_ids"]


def test_documents_start_with_bos_and_are_cut_at_their_length(vocab):
    ids = documents(3, 5, 20, vocab)
    assert ids.shape == (5, 20)
    assert (ids[:, 0] == BOS).all()
    assert (ids[:, 1:] > 3).all()
    assert ids.equal(documents(3, 5, 20, vocab))
    assert not ids.equal(documents(4, 5, 20, vocab))
