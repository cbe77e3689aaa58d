"""Chunks cover every node once and do not change a row; influence is followed by the slow definition."""

import pytest
import torch
from torch import Tensor

from families import loaded, prompts
from graphs import FEATURES, linearized, transcoders
from whence.engine.expansion import Chunk, Solved, cell_bytes, chunks, least_bytes, solve
from whence.engine.expansion_order import by_influence, influence_of, readable
from whence.engine.linearize import Linearized

IDS = prompts(1, 7)


@pytest.fixture(scope="module")
def linear() -> Linearized:
    model = loaded("llama", torch.float64)
    return linearized(model, IDS, transcoders(model))


def dense(linear: Linearized, solved: list[Solved]) -> Tensor:
    rows = torch.zeros(linear.stream.nodes, linear.stream.nodes, dtype=torch.float64)
    for one in solved:
        offset = linear.stream.groups[one.chunk.group].offset
        rows[(offset + one.chunk.node)[:, None], one.columns] = one.values
    return rows


@pytest.mark.parametrize("chunk_bytes", [1, 40_000, 1 << 28])
def test_chunks_cover_each_node_once_by_ascending_position(linear: Linearized, chunk_bytes: int) -> None:
    nodes = readable(linear)[torch.randperm(len(readable(linear)), generator=torch.Generator().manual_seed(0))]
    found = list(chunks(linear, nodes, chunk_bytes))
    covered = torch.cat([linear.stream.groups[one.group].offset + one.node for one in found])
    assert covered.tolist() == readable(linear).tolist()
    for one in found:
        assert one.position == sorted(one.position)
        assert one.position == linear.stream.groups[one.group].position()[one.node].tolist()


def test_chunks_keep_to_their_memory(linear: Linearized) -> None:
    cell = cell_bytes(linear)
    budget = least_bytes(linear) + 20 * cell
    for one in chunks(linear, readable(linear), budget):
        assert len(one.node) == 1 or len(one.node) * (one.position[-1] + 1) * cell <= budget


def test_rows_do_not_depend_on_their_chunks(linear: Linearized) -> None:
    together = dense(linear, [solve(linear, one) for one in chunks(linear, readable(linear))])
    apart = dense(linear, [solve(linear, one) for one in chunks(linear, readable(linear), 1)])
    assert (together - apart).abs().max() < 1e-13 * together.abs().max()


def test_a_gap_is_relative_to_the_parts_of_a_row_or_what_it_reads() -> None:
    chunk = Chunk(0, torch.tensor([0]), [0])
    row = torch.tensor([[2.0, -1.0]])
    given = {"chunk": chunk, "columns": torch.tensor([0, 1]), "values": row, "constant": torch.tensor([0.5])}
    one = Solved(**given, value=torch.tensor([1.0]), scale=torch.tensor([1.0]))
    assert (one.gap().item(), one.magnitude().item()) == (0.5, 3.5)
    assert Solved(**given, value=torch.tensor([1.0]), scale=torch.tensor([9.0])).magnitude().item() == 9


def logits(linear: Linearized) -> Solved:
    last = linear.stream.groups[max(linear.readers)]
    chunk = Chunk(None, torch.tensor([0, 1]), [6, 6])
    columns = torch.arange(last.offset, last.offset + len(last))
    values = torch.randn(2, len(last), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ones = torch.ones(2, dtype=torch.float64)
    return Solved(chunk, columns, values, ones, values.sum(1) + 1, ones)


def slow_influence(linear: Linearized, top: Solved, weights: Tensor, rows: list[Solved]) -> Tensor:
    """weights . B^logits . (1 + B + B^2 + ...), with B the rows' absolute shares."""
    n = linear.stream.nodes
    shares = torch.zeros(n, n, dtype=torch.float64)
    for one in rows:
        offset = linear.stream.groups[one.chunk.group].offset
        sums = one.values.abs().sum(1) + one.constant.abs()
        shares[(offset + one.chunk.node)[:, None], one.columns] = one.values.abs() / sums[:, None]
    first = torch.zeros(n, dtype=torch.float64)
    first[top.columns] = weights @ (top.values.abs() / (top.values.abs().sum(1) + top.constant.abs())[:, None])
    return first @ torch.linalg.inv(torch.eye(n, dtype=torch.float64) - shares)


def test_influence_is_the_geometric_series_of_absolute_shares(linear: Linearized) -> None:
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)
    rows = [solve(linear, one) for one in chunks(linear, readable(linear)[::2])]
    expected = slow_influence(linear, logits(linear), weights, rows)
    found = influence_of(linear, logits(linear), weights, rows)
    assert (found - expected).abs().max() < 1e-6 * expected.max()


@pytest.mark.parametrize("count", [1, 5, 33])
def test_the_most_influential_nodes_come_first_and_are_looked_at_anew(linear: Linearized, count: int) -> None:
    weights, nodes = torch.tensor([0.7, 0.3], dtype=torch.float64), readable(linear)
    asked: list[list[int]] = []

    def solver(wanted: Tensor) -> list[Solved]:
        asked.append(wanted.tolist())
        return [solve(linear, one) for one in chunks(linear, wanted)]

    solved = by_influence(linear, logits(linear), weights, count, solver)
    step, taken, rows = -(-count // 16), list[int](), list[Solved]()
    while len(taken) < count:
        influence = slow_influence(linear, logits(linear), weights, rows)
        rest = [int(node) for node in nodes if int(node) not in taken]
        rest.sort(key=lambda node: -float(influence[node]))
        chosen = rest[: min(step, count - len(taken))]
        taken += chosen
        rows = [solve(linear, one) for one in chunks(linear, torch.tensor(taken))]
    assert sorted(node for wanted in asked for node in wanted) == sorted(taken)
    assert sum(len(one.chunk.node) for one in solved) == count <= FEATURES * 3 * 7
