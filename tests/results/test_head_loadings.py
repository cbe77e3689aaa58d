"""Head loadings as plain data."""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console

from whence.results.head_loadings import HeadLoadings
from whence.results.keys import Edge, Node

HEADS = (Node("attn.head", 0, 0), Node("attn.head", 0, 1))
EDGE = Edge(Node.parse("embed:5@0"), Node.parse("1.mlp.feature:3@2"))


def found() -> HeadLoadings:
    values = torch.tensor([[0.5], [-1.0]])
    return HeadLoadings(HEADS, (EDGE,), values, torch.tensor([0.25]), torch.tensor([-0.125]), "source", {"model": "m"})


def test_the_remainder_is_what_parts_leave() -> None:
    assert found().remainder.tolist() == [0.125]


def test_top_puts_the_largest_loading_first() -> None:
    assert found().top(0, 1) == [(HEADS[1], -1.0)]
    assert len(found().top()) == 2


def test_json_and_the_table_show_edges_and_heads() -> None:
    data = json.loads(json.dumps(found().to_json()))
    assert data["edges"] == [{"source": "embed:5@0", "target": "1.mlp.feature:3@2"}]
    assert data["heads"] == ["0.attn.head:0", "0.attn.head:1"]
    assert data["values"] == [[0.5], [-1.0]]
    console = Console(width=120, record=True, file=StringIO())
    console.print(found())
    assert "0.1 -1.0000, 0.0 +0.5000" in console.export_text()


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="2 heads and 1 edges need"):
        HeadLoadings(HEADS, (EDGE,), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), "source")


def test_it_prints_as_one_line() -> None:
    assert repr(found()) == "HeadLoadings(1 edge × 2 heads by source: remainder at most 1.2e-01)"
