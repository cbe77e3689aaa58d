import pytest
import torch

from corpus.word_tokenizers import tokenizer
from families import VOCAB, loaded, tiny
from whence.corpus import encoding
from whence.corpus.documents import Document
from whence.corpus.encoding import Encoder


def encoded(source, *contents):
    return [one.ids.tolist() for one in Encoder(source)(Document(f"item {n}", c) for n, c in enumerate(contents))]


def test_text_is_encoded_as_the_tokenizer_is_set_up_to_and_ids_are_taken_as_they_are():
    ids = torch.tensor([4, 3], dtype=torch.int32)
    assert encoded(tokenizer("bos", front=True), "a b", ids, "c") == [[1, 10, 11], [4, 3], [1, 12]]
    assert encoded(tokenizer("eos"), "a b", ids, "c") == [[10, 11], [4, 3], [12]]
    assert encoded(None, ids) == [[4, 3]]


@pytest.mark.parametrize(
    ("source", "separator"),
    [
        (tokenizer("bos", "eos"), 2),
        (tokenizer("bos"), 1),
        (tokenizer(), None),
        (tokenizer("bos", "eos", front=True), None),  # its own <bos> tells texts apart
        (None, None),
    ],
)
def test_texts_are_told_apart_by_the_tokenizers_own_token_or_its_end_or_its_begin_token(source, separator):
    assert Encoder(source).separator == separator


@pytest.mark.parametrize(("together", "large"), [(1, 1 << 20), (3, 1 << 20), (256, 4), (256, 1 << 20)])
def test_ids_do_not_depend_on_how_many_documents_are_encoded_together(monkeypatch, together, large):
    monkeypatch.setattr(encoding, "TOGETHER", together)
    monkeypatch.setattr(encoding, "LARGE", large)
    texts = ["a b c", "d", "e e", "a", "b b b b", "c", "d a"]
    expected = [[{"a": 10, "b": 11, "c": 12, "d": 13, "e": 14}[word] for word in text.split()] for text in texts]
    assert encoded(tokenizer("eos"), *texts) == expected


def test_no_more_than_a_group_is_read_ahead(monkeypatch):
    monkeypatch.setattr(encoding, "TOGETHER", 4)
    taken = []
    source = (taken.append(n) or Document("", "a") for n in range(100))
    next(Encoder(tokenizer())(source))
    assert len(taken) == 4


def test_text_without_a_tokenizer_is_refused():
    with pytest.raises(ValueError, match="the data are text, but there is no tokenizer"):
        encoded(None, "a")


def test_ids_that_the_model_does_not_embed_are_refused_naming_the_document():
    model = loaded("llama")
    assert encoded(model, torch.tensor([VOCAB - 1])) == [[VOCAB - 1]]
    message = f"item 1: token id {VOCAB} at 2 is outside 0 to {VOCAB - 1}, which the model embeds"
    with pytest.raises(ValueError, match=message):
        encoded(model, torch.tensor([1]), torch.tensor([0, 1, VOCAB]))
    with pytest.raises(ValueError, match="item 0: token id -100 at 0"):
        encoded(None, torch.tensor([-100]))


def test_a_model_that_is_not_a_whence_model_is_refused():
    with pytest.raises(TypeError, match=r"a LlamaForCausalLM; it is a whence\.Model, a tokenizer, or None"):
        Encoder(tiny("llama"))
