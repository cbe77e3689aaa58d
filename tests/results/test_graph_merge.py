from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from layered_graphs import layered
from whence.results.graph import Graph
from whence.results.weights import Block, Weights


def _parts(graph: Graph, count: int = 2) -> list[Graph]:
    """Every count-th block to each."""
    blocks = list(graph.weights)
    return [_part(graph, blocks[i::count], (i, count)) for i in range(count)]


def _part(graph: Graph, blocks: Sequence[Block], shard: tuple[int, int]) -> Graph:
    rows = torch.cat([block.rows for block in blocks])
    return replace(
        graph,
        weights=Weights(graph.weights.shape, blocks),
        certificate=replace(
            graph.certificate, **{name: getattr(graph.certificate, name)[:0] for name in ("value", "gap", "magnitude")},
            rows=rows[:0],
        ),
        provenance={**graph.provenance, "shard": list(shard)},
    )  # fmt: skip


def test_the_parts_of_a_graph_are_the_graph_in_whatever_order_they_come() -> None:
    graph = layered(0)
    parts = _parts(graph, 3)

    assert torch.equal(Graph.merge(parts).dense(), graph.dense())
    assert torch.equal(Graph.merge(parts[::-1]).dense(), graph.dense())


def test_rows_that_no_part_has_are_named() -> None:
    first, second = _parts(layered(0))
    lost, *blocks = second.weights
    short = _part(second, blocks, (1, 2))

    with pytest.raises(ValueError, match=rf"{len(lost.rows)} rows are missing .*{layered(0).nodes[int(lost.rows[0])]}"):
        Graph.merge([first, short])


def test_rows_that_two_parts_have_are_named() -> None:
    first, second = _parts(layered(0))
    twice = next(iter(first.weights))
    more = _part(second, [*second.weights, twice], (1, 2))

    with pytest.raises(ValueError, match=rf"{len(twice.rows)} are there more than once .*\[?.* is in 2"):
        Graph.merge([first, more])


def test_parts_that_are_missing_or_given_twice_are_refused() -> None:
    first, second = _parts(layered(0))

    with pytest.raises(ValueError, match=r"missing: \[1\]"):
        Graph.merge([first])
    with pytest.raises(ValueError, match=r"given twice: \[0\]"):
        Graph.merge([first, first, second])
    with pytest.raises(ValueError, match="no graphs were given"):
        Graph.merge([])
    with pytest.raises(ValueError, match="is whole"):
        Graph.merge([layered(0)])
    with pytest.raises(ValueError, match="not shards of one run"):
        Graph.merge([first, _parts(layered(1))[1]])
