"""Padded products against a loop over every pair of rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from whence.engine.circuits import joins
from whence.engine.circuits.joins import Rows, Table, WideRows, join, join_wide, widened

EXAMPLES, LENGTH, TARGETS, SOURCES, WIDTH = 3, 4, 5, 6, 2
LIMITS = [("AT_ONCE", 1), ("AT_ONCE", 7), ("DENSE", 0), ("DENSE", 1 << 24)]


def rows(count: int, nodes: int, generator: torch.Generator) -> Rows:
    draw = lambda most: torch.randint(most, (count,), generator=generator)  # noqa: E731
    vector = torch.randint(-3, 4, (count, WIDTH), generator=generator).double()
    return Rows(draw(EXAMPLES), draw(LENGTH), draw(nodes), vector)


def table() -> Table:
    return Table(EXAMPLES, TARGETS, SOURCES, torch.zeros(0, dtype=torch.float64))


def dense(found: Table) -> Tensor:
    (example, target, source), weight = found.entries()
    out = torch.zeros(found.shape, dtype=torch.float64)
    return out.index_put_((example, target, source), weight.double(), accumulate=False)


def by_loop(down: Rows, up: Rows) -> Tensor:
    out = torch.zeros(EXAMPLES, TARGETS, SOURCES, dtype=torch.float64)
    for i in range(len(down)):
        for j in range(len(up)):
            if down.example[i] == up.example[j] and down.position[i] == up.position[j]:
                out[down.example[i], down.node[i], up.node[j]] += down.vector[i] @ up.vector[j]
    return out


def wide_by_loop(down: WideRows, up: Rows) -> Tensor:
    out = torch.zeros(EXAMPLES, TARGETS, SOURCES, dtype=torch.float64)
    for i in range(len(down)):
        for j in range(len(up)):
            if down.example[i] == up.example[j]:
                out[down.example[i], down.node[i], up.node[j]] += down.field[i, up.position[j]] @ up.vector[j]
    return out


@pytest.mark.parametrize(("limit", "value"), LIMITS)
def test_rows_of_one_token_meet_and_no_others(limit: str, value: int) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 1000))
    def check(downs: int, ups: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        down, up, found = rows(downs, TARGETS, generator), rows(ups, SOURCES, generator), table()
        join(down, up, LENGTH, found)
        assert torch.equal(dense(found), by_loop(down, up))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joins, limit, value)
        check()


@pytest.mark.parametrize(("limit", "value"), LIMITS)
def test_fields_meet_every_row_of_their_example(limit: str, value: int) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 1000))
    def check(downs: int, ups: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        one, up, found = rows(downs, TARGETS, generator), rows(ups, SOURCES, generator), table()
        field = torch.randint(-3, 4, (downs, LENGTH, WIDTH), generator=generator).double()
        down = WideRows(one.example, one.node, field)
        join_wide(down, up, found)
        join_wide(down, up, found)  # what comes later is added
        assert torch.equal(dense(found), 2 * wide_by_loop(down, up))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joins, limit, value)
        check()


def test_widened_rows_say_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    down, up = rows(9, TARGETS, generator), rows(11, SOURCES, generator)
    wide, one, other = widened(down, LENGTH), table(), table()
    join(down, up, LENGTH, one)
    join_wide(wide, up, other)
    assert torch.equal(dense(one), dense(other))
    join_wide(wide.plus(-wide.field), up, third := table())
    assert not dense(third).any()


@pytest.mark.parametrize("dense_limit", [0, 1 << 24])
def test_weights_of_one_pair_are_summed_and_zeros_left_out(dense_limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joins, "DENSE", dense_limit)
        found = table()
        assert found.entries()[1].tolist() == []
        at = [torch.tensor(one) for one in ([0, 2, 0], [1, 4, 1], [5, 0, 5])]
        found.add(*at, torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64))
        found.add(*(one[1:2] for one in at), torch.tensor([-1.0], dtype=torch.float64))
        index, weight = found.entries()
    assert index.tolist() == [[0], [1], [5]]
    assert weight.tolist() == [5.0]
