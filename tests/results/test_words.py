"""Numbers of things in words."""

from whence.results.words import counted


def test_only_one_is_singular() -> None:
    assert [counted(number, "pair") for number in (0, 1, 2, 1200)] == ["0 pairs", "1 pair", "2 pairs", "1,200 pairs"]
