import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.corpus.cutting import Tally, apart, packed
from whence.corpus.encoding import Tokens

# (ids, whether text, whether it continues the document before it)
DOCUMENTS = st.lists(st.tuples(st.lists(st.integers(3, 9), max_size=9), st.booleans(), st.just(False)), max_size=9)


def tokens(documents):
    return [Tokens(torch.tensor(ids, dtype=torch.long), *flags) for ids, *flags in documents]


def real(blocks):
    return [
        ids[:length] for block in blocks for ids, length in zip(block.ids.tolist(), block.lengths.tolist(), strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 7), st.sampled_from([None, 1]))
def test_packing_is_one_long_list_cut_at_every_length(documents, length, separator):
    joined = []
    for ids, is_text, _ in documents:
        if ids:
            joined += ([separator] if separator and is_text and joined else []) + ids
    expected = [joined[start : start + length] for start in range(0, len(joined), length)]
    assert real(packed(tokens(documents), length, separator, Tally())) == expected


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 7))
def test_apart_each_document_is_a_row_and_what_is_cut_is_counted(documents, length):
    tally = Tally()
    assert real(apart(tokens(documents), length, tally)) == [ids[:length] for ids, *_ in documents if ids]
    assert tally.tokens_cut == sum(max(0, len(ids) - length) for ids, *_ in documents)
    assert (tally.documents, tally.empty) == (sum(bool(ids) for ids, *_ in documents), sum(not d[0] for d in documents))


def test_the_last_packed_row_is_padded_with_zeros():
    *_, last = packed(tokens([([5, 6, 7, 8], True, False)]), 3, None, Tally())
    assert last.ids.tolist() == [[8, 0, 0]]
    assert last.lengths.tolist() == [1]


def test_the_pieces_of_a_long_document_are_one_document():
    pieces = tokens([([5, 6], False, False), ([7], False, True), ([8], False, True)])
    tally = Tally()
    assert real(packed(pieces, 3, 1, tally)) == [[5, 6, 7], [8]]
    assert tally.documents == 1
    tally = Tally()
    assert real(apart(pieces, 2, tally)) == [[5, 6]]
    assert (tally.documents, tally.tokens_cut) == (1, 2)
