import pytest

from whence.targets.pair_checks import numbers_of


def test_numbers_come_back_as_plain_ints():
    assert numbers_of(range(2, -3, -2), 4) == [2, 0, -2]


@pytest.mark.parametrize("which", [2, True, None])
def test_a_single_number_is_refused_with_the_slice_to_write(which):
    with pytest.raises(TypeError, match=rf"not by {which}; one is pairs\[3:4\]"):
        numbers_of(which, 4)


@pytest.mark.parametrize("outside", [4, -5])
def test_a_number_on_either_side_of_the_pairs_is_refused(outside):
    with pytest.raises(IndexError, match=f"there is no pair {outside}"):
        numbers_of([0, outside], 4)
