import pytest
from hypothesis import given
from hypothesis import strategies as st

from whence.results.keys import Node
from whence.results.rows import Keys
from whence.results.runs import Run

KEYS = Keys(
    [
        Run(Node("embed")),
        Run(Node("attn.head", 0, 0), range(0)),
        Run(Node("attn.head", 1, 0), range(4)),
        Run(Node("moe.neuron", 1, (0, 0)), (2, 9), 4),
        Run(Node("mlp", 1)),
    ]
)
NAMES = ["embed", *(f"1.attn.head:{h}" for h in range(4)), "1.moe.neuron:0/2", "1.moe.neuron:2/1", "1.mlp"]


def test_rows_come_in_the_order_of_their_runs() -> None:
    assert [str(node) for node in KEYS] == NAMES
    assert [str(KEYS[row]) for row in range(len(KEYS))] == NAMES


@given(st.slices(8))
def test_a_slice_is_the_list_of_its_rows(part: slice) -> None:
    assert [str(node) for node in KEYS[part]] == NAMES[part]


def test_negative_rows_count_from_the_end() -> None:
    assert str(KEYS[-1]) == "1.mlp"
    assert str(KEYS[-8]) == "embed"


@pytest.mark.parametrize("row", [8, -9])
def test_a_row_past_the_end_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of a table with 8 rows"):
        KEYS[row]


def test_index_undoes_getitem() -> None:
    assert [KEYS.index(node) for node in KEYS] == list(range(8))
    assert KEYS.index(Node("mlp", 1), 3) == 7


def test_an_absent_node_is_named() -> None:
    assert Node("mlp", 2) not in KEYS
    assert "1.mlp" not in KEYS
    with pytest.raises(ValueError, match=r"'2\.mlp' is not among these 8 rows"):
        KEYS.index(Node("mlp", 2))
    with pytest.raises(ValueError, match="is not among"):
        KEYS.index(Node("embed"), 1)


def test_equality_is_of_nodes_however_they_are_grouped() -> None:
    assert Keys.of(KEYS) == KEYS
    assert Keys.of(KEYS[:-1]) != KEYS
    assert Keys.of([*KEYS[:-1], Node("mlp", 2)]) != KEYS
    assert list(KEYS) != KEYS


def test_the_repr_stays_short() -> None:
    assert repr(KEYS) == "Keys(8: 'embed', '1.attn.head:0', '...', '1.mlp')"
    assert repr(Keys([])) == "Keys(0: )"


def test_no_node_is_made_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, check = [], Node.__post_init__
    monkeypatch.setattr(Node, "__post_init__", lambda node: (made.append(node), check(node))[1])
    keys = Keys([Run(Node("mlp.neuron", layer, 0), range(3072)) for layer in range(12)])

    assert len(keys) == 36864
    assert str(keys[36863]) == "11.mlp.neuron:3071"
    assert keys.index(Node("mlp.neuron", 11, 3071)) == 36863
    assert len(made) < 100
