import json
from itertools import count

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from corpus.word_tokenizers import WORDS, tokenizer
from families import VOCAB, loaded
from whence.corpus import arrays, encoding
from whence.corpus.prepare import prepare
from whence.demo import model_path
from whence.demo.corpus import demo_corpus
from whence.errors import FileFormatError

TEXTS = ["a b c d", "e", "", "b b b b b b b b", "c a", "  ", "d d e"]
ENDED = [[WORDS[word] for word in text.split()] for text in TEXTS if text.strip()]


def in_order(rows):
    return [rows.row(number).tolist() for number in range(rows.rows)]


def joined(documents, separator):
    return [id for n, ids in enumerate(documents) for id in ([separator] if n else []) + ids]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 40])
def test_packed_texts_are_the_naive_concatenation_cut_at_every_length(tmp_path, length):
    tokens = joined(ENDED, 2)
    rows = prepare(TEXTS, tokenizer("eos"), tmp_path / "rows", sequence_length=length)
    assert in_order(rows) == [tokens[start : start + length] for start in range(0, len(tokens), length)]
    assert (rows.tokens, rows.about["documents"], rows.about["empty"]) == (len(tokens), 5, 2)


def test_a_tokenizer_that_begins_each_text_itself_needs_no_separator(tmp_path):
    rows = prepare(TEXTS, tokenizer("bos", "eos", front=True), tmp_path / "rows", sequence_length=5)
    tokens = [id for ids in ENDED for id in (1, *ids)]
    assert in_order(rows) == [tokens[start : start + 5] for start in range(0, len(tokens), 5)]
    assert rows.about["separator"] is None


def test_apart_each_text_is_a_row_and_what_is_cut_off_is_counted(tmp_path):
    rows = prepare(TEXTS, tokenizer("eos"), tmp_path / "rows", sequence_length=4, pack=False)
    assert in_order(rows) == [ids[:4] for ids in ENDED]
    assert rows.about["tokens_cut"] == 4


def test_the_same_data_in_any_form_are_the_same_rows(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"story": text}) + "\n" for text in TEXTS))
    forms = (TEXTS, iter(TEXTS), [{"story": text} for text in TEXTS], tmp_path / "a.txt", str(tmp_path / "a.jsonl"))
    options = {"sequence_length": 3, "text_field": "story"}
    found = [prepare(form, tokenizer("eos"), tmp_path / f"{n}", **options) for n, form in enumerate(forms)]
    assert len({rows.fingerprint for rows in found}) == 1
    assert found[3].about["data"] == [{"file": str(tmp_path / "a.txt"), "bytes": (tmp_path / "a.txt").stat().st_size}]
    assert [rows.about["data"] for rows in found[:2]] == ["list", "list_iterator"]


@pytest.mark.parametrize("shape", [(4, 6), (24,)])
def test_arrays_of_tokens_are_joined_as_they_are(tmp_path, shape):
    ids = torch.arange(24).reshape(shape)
    np.save(tmp_path / "a.npy", ids.numpy())
    for n, data in enumerate((ids, ids.numpy(), tmp_path / "a.npy")):
        rows = prepare(data, tokenizer("eos"), tmp_path / f"{n}", sequence_length=5)
        assert in_order(rows) == [list(range(start, min(start + 5, 24))) for start in range(0, 24, 5)]


@pytest.mark.parametrize(("together", "piece"), [(1, 4), (2, 7), (256, 1 << 20)])
def test_rows_do_not_depend_on_how_much_is_read_at_a_time(tmp_path, monkeypatch, together, piece):
    data = [*TEXTS, [3, 4, 5, 6, 7], *TEXTS]
    expected = prepare(data, tokenizer("eos"), tmp_path / "a", sequence_length=4).fingerprint
    flat = prepare(torch.arange(50), None, tmp_path / "b", sequence_length=4).fingerprint
    monkeypatch.setattr(encoding, "TOGETHER", together)
    monkeypatch.setattr(arrays, "PIECE", piece)
    assert prepare(data, tokenizer("eos"), tmp_path / "c", sequence_length=4).fingerprint == expected
    assert prepare(torch.arange(50), None, tmp_path / "d", sequence_length=4).fingerprint == flat


@pytest.mark.parametrize("pack", [True, False])
def test_an_endless_stream_ends_at_the_rows_that_are_asked_for(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(encoding, "TOGETHER", 4)
    taken = []
    endless = (taken.append(n) or [n % 40, 1, 2] for n in count())
    rows = prepare(endless, None, tmp_path / "rows", sequence_length=3, rows=10, pack=pack, seed=None)
    assert in_order(rows) == [[n, 1, 2] for n in range(10)]
    assert rows.about["documents"] == 10
    assert len(taken) == 12  # whole groups of four


def test_rows_asked_for_are_cut_inside_a_document(tmp_path):
    rows = prepare([list(range(20))], None, tmp_path / "rows", sequence_length=3, rows=4, seed=None)
    assert in_order(rows) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_a_seed_changes_the_order_of_the_batches_and_the_fingerprint_but_no_row(tmp_path):
    data = torch.arange(64).reshape(16, 4)
    found = {seed: prepare(data, None, tmp_path / f"{seed}", sequence_length=4, seed=seed) for seed in (None, 0, 1)}
    again = prepare(data, None, tmp_path / "again", sequence_length=4, seed=1)
    assert again.fingerprint == found[1].fingerprint
    assert len({rows.fingerprint for rows in found.values()}) == 3
    orders = [tuple(rows.batch(0, 16).numbers.tolist()) for rows in found.values()]
    assert orders[0] == tuple(range(16))
    assert len(set(orders)) == 3
    assert all(in_order(rows) == data.tolist() for rows in found.values())


def test_the_demos_texts_apart_begin_with_its_begin_token(tmp_path):
    demo = AutoTokenizer.from_pretrained(model_path())
    texts = demo_corpus(documents=4)
    rows = prepare(texts, demo, tmp_path / "rows", sequence_length=32, pack=False)
    assert in_order(rows) == [demo(text).input_ids[:32] for text in texts]
    assert {row[0] for row in in_order(rows)} == {demo.bos_token_id}


def test_progress_counts_the_rows(tmp_path):
    said = []
    prepare([[1, 2], [3, 4], [5]], None, tmp_path / "a", sequence_length=2, progress=lambda *one: said.append(one))
    prepare([[1, 2], [3, 4]], None, tmp_path / "b", sequence_length=2, rows=1, progress=lambda *one: said.append(one))
    assert said == [("rows", 1, 0), ("rows", 2, 0), ("rows", 3, 0), ("rows", 1, 1)]


@pytest.mark.parametrize("data", [[], ["", " \n"], [[]], torch.empty(0, 4, dtype=torch.long), iter(())])
def test_data_without_a_token_are_refused_and_leave_nothing(tmp_path, data):
    with pytest.raises(ValueError, match="the data hold no tokens"):
        prepare(data, tokenizer("eos", "bos", front=True), tmp_path / "rows", sequence_length=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sequence_length", "rows"])
def test_numbers_below_one_are_refused(tmp_path, name):
    options = {"sequence_length": 2} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it is at least 1"):
        prepare([[1]], None, tmp_path / "rows", **options)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    prepare([[1, 2]], None, tmp_path / "rows", sequence_length=2)
    before = sorted((tmp_path / "rows").iterdir())
    with pytest.raises(FileFormatError, match="exists already"):
        prepare([[3, 4]], None, tmp_path / "rows", sequence_length=2)
    assert sorted((tmp_path / "rows").iterdir()) == before


def test_a_token_that_the_model_does_not_embed_is_refused_by_its_document(tmp_path):
    with pytest.raises(ValueError, match=f"the array, row 1: token id {VOCAB} at 0 is outside"):
        prepare(torch.tensor([[1, 2], [VOCAB, 1]]), loaded("llama"), tmp_path / "rows", sequence_length=2)
    assert list(tmp_path.iterdir()) == []
