"""QK attributions as plain data."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from whence.errors import FileFormatError
from whence.results import qk, store
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.qk import QKAttribution


def found() -> QKAttribution:
    query = NodeTable.from_nodes(
        [Node("embed", index=5, position=1), Node("mlp.feature", 0, 3, position=1), Node("bias")]
    )
    key = NodeTable.from_nodes([Node("embed", index=4, position=0), Node("bias")])
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[3.0, -1.0], [0.5, 0.0]])
    return QKAttribution(Node.parse("1.attn.head:2.qk@1~0"), query, key, *vectors, 4.25, 0.5, {"model": "m"})


def test_the_matrix_holds_every_pair_and_sums_to_the_score_less_the_remainder() -> None:
    scores = found()
    expected = torch.tensor([[3.0, 0.5], [-2.0, 0.0], [2.0, 0.5]])
    assert torch.equal(scores.matrix, expected)
    assert torch.equal(scores.query_totals, expected.sum(1).double())
    assert torch.equal(scores.key_totals, expected.sum(0).double())
    assert scores.remainder == 0.25
    assert scores.magnitude == 8.0


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_the_strongest_pairs_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(qk, "ROWS_AT_ONCE", rows)
    top = [(str(one), str(other), value) for one, other, value in found().top(3)]
    assert top[0] == ("embed:5@1", "embed:4@0", 3.0)
    assert set(top[1:]) == {("0.mlp.feature:3@1", "embed:4@0", -2.0), ("bias", "embed:4@0", 2.0)}
    assert len(found().top(100)) == 6


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    scores = found()
    again = QKAttribution.load(scores.save(tmp_path / "qk"))
    assert again.to_json() == scores.to_json()
    assert torch.equal(again.matrix, scores.matrix)
    assert [*again.query_nodes] == [*scores.query_nodes]


def test_a_file_that_lacks_something_is_refused(tmp_path: Path) -> None:
    store.write(tmp_path / "qk", "qk", {}, {"query_vectors": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="QK attributions"):
        QKAttribution.load(tmp_path / "qk")


def test_nodes_without_vectors_are_refused() -> None:
    scores = found()
    with pytest.raises(ValueError, match="3 query_nodes but 2 rows"):
        QKAttribution(scores.head, scores.query_nodes, scores.key_nodes, *[scores.key_vectors] * 2, 0.0, 0.0)


def test_json_and_the_table_show_the_strongest_pairs() -> None:
    scores = found()
    assert json.loads(json.dumps(scores.to_json(1)))["pairs"] == [
        {"query": "embed:5@1", "key": "embed:4@0", "value": 3.0}
    ]
    console = Console(width=100, record=True, file=StringIO())
    console.print(scores)
    text = console.export_text()
    assert "+3.0000" in text
    assert "remainder" in text
    assert repr(scores) == "QKAttribution(1.attn.head:2.qk@1~0: 3 × 2 pairs, score +4.2500, remainder +2.5e-01)"
