import pytest
from transformers import AutoTokenizer

from whence.demo import model_path
from whence.demo.corpus import demo_corpus
from whence.demo.model import document_seed
from whence.demo.tokenizer import CONTEXT, documents, vocabulary


def test_the_texts_are_the_tokens_that_the_model_is_trained_on_for_the_same_seed():
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    found = tokenizer(demo_corpus(documents=5, seed=3)).input_ids
    expected = documents(document_seed("corpus", 3), 5, CONTEXT, vocabulary())
    assert [row[:CONTEXT] for row in found] == expected.tolist()


def test_another_seed_gives_other_texts_and_the_same_seed_the_same():
    assert demo_corpus(documents=2, seed=1) == demo_corpus(documents=2, seed=1)
    assert not set(demo_corpus(documents=2, seed=1)) & set(demo_corpus(documents=2, seed=2))


def test_no_documents_are_refused():
    with pytest.raises(ValueError, match="documents is 0; it is at least 1"):
        demo_corpus(documents=0)
