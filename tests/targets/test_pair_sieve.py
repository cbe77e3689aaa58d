from targets.pair_tokenizers import demo
from whence.targets.pair_lines import PairText
from whence.targets.pair_sieve import sift
from whence.targets.pair_tokens import PairEncoder

GOOD, UNKNOWN = PairText("The pilots", " are"), PairText("The xylophones", " are")
LONG = PairText("The pilots", " are tall")


def test_usable_pairs_are_kept_in_order_and_the_others_counted_by_reason():
    sifted = sift(PairEncoder(demo()), [UNKNOWN, GOOD, LONG, UNKNOWN])
    assert sifted.texts == [GOOD]
    assert sifted.dropped == {"unknown word": 2, "answer is not one token": 1}
    assert [number for number, _ in sifted.refused["unknown word"]] == [0, 3]
    assert sifted.account == "unknown word (2), answer is not one token (1)"


def test_nothing_is_looked_at_once_enough_are_found():
    sifted = sift(PairEncoder(demo()), iter([UNKNOWN, GOOD, GOOD, UNKNOWN, GOOD]), 2)
    assert (len(sifted.tokens), sifted.dropped) == (2, {"unknown word": 1})
    assert sift(PairEncoder(demo()), []).account == "none"
