import pytest
import torch

from whence.results.keys import Node
from whence.results.kinds import kind_of, of_kind
from whence.results.nodes import NodeTable

KEYS = (
    *("0.mlp.feature:0@1", "2.mlp.feature:17@5", "3.mlp.neuron:4@2", "3.moe.neuron:3/17@5", "2.mlp.error@0"),
    *(
        "2.mlp.error@5",
        "2.mlp@0",
        "3.ssm@3",
        "3.attn@0",
        "2.moe.expert:3@5",
        "embed:0@0",
        "pos_embed@4",
        "rest",
        "bias",
    ),
    *("2.mlp.bias@3", "output:262@9", "metric", "3.attn.head:1.k@2", "0.mlp.neuron:4.gate"),
)
TABLE = NodeTable.from_nodes(map(Node.parse, KEYS))


def test_nodes_come_back_from_a_table() -> None:
    assert tuple(map(str, TABLE)) == KEYS
    assert tuple(str(TABLE[row]) for row in range(len(TABLE))) == KEYS


@pytest.mark.parametrize("row", range(len(KEYS)))
def test_a_node_is_found_by_itself_and_by_its_key(row: int) -> None:
    assert TABLE.find(KEYS[row]) == TABLE.find(TABLE[row]) == row


def test_a_node_that_is_not_there_is_told_what_is_near() -> None:
    with pytest.raises(KeyError, match=r"feature:17@6 is not among these 19 nodes\. Near it are 2\.mlp\.feature"):
        TABLE.find("2.mlp.feature:17@6")
    with pytest.raises(KeyError, match="not among these 0 nodes"):
        NodeTable.from_nodes([]).find("bias")


def test_nodes_are_chosen_by_name_and_by_number() -> None:
    assert TABLE.of("bias", "rest").tolist() == [12, 13]
    assert [str(node) for node in TABLE.select(torch.tensor([15, 0]))] == [KEYS[15], KEYS[0]]


def test_a_node_with_a_source_is_refused() -> None:
    with pytest.raises(ValueError, match="has a source token"):
        NodeTable.from_nodes([Node.parse("9.attn.head:6@14~10")])


def test_each_node_is_of_its_kind() -> None:
    assert kind_of(TABLE) == [
        *("feature", "feature", "feature", "feature", "error", "error", "constant", "error", "constant", "error"),
        *("token", "token", "rest", "constant", "constant", "output", "output", "error", "feature"),
    ]
    assert of_kind(TABLE, "rest", "output").nonzero().flatten().tolist() == [12, 15, 16]
