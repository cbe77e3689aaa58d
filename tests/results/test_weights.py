import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whence.results.weights import Block, Weights


def _matrix(seed: int, rows: int, columns: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=random) * (torch.rand(rows, columns, generator=random) < 0.3)


MATRICES = st.builds(_matrix, st.integers(0, 1000), st.integers(1, 200), st.integers(1, 9))
SQUARES = st.tuples(st.integers(0, 1000), st.integers(1, 90)).map(lambda given: _matrix(given[0], given[1], given[1]))


@settings(deadline=None)
@given(MATRICES)
def test_every_way_in_and_out_gives_the_same_matrix(matrix: torch.Tensor) -> None:
    weights = Weights.from_dense(matrix)

    assert torch.equal(weights.dense(), matrix)
    assert torch.equal(Weights.from_coo(*weights.coo(), weights.shape).dense(), matrix)
    assert torch.equal(weights.to_sparse_csr().to_dense(), matrix)
    assert weights.nnz == int(matrix.count_nonzero())
    assert [index.tolist() for index in weights.coo()[:2]] == matrix.nonzero().T.tolist()


@settings(deadline=None)
@given(MATRICES)
def test_products_and_sums_are_those_of_the_matrix(matrix: torch.Tensor) -> None:
    weights, wide = Weights.from_dense(matrix), matrix.double()
    x, y = torch.ones(matrix.shape[1]).double(), torch.arange(matrix.shape[0]).double()

    torch.testing.assert_close(weights.matvec(x), wide @ x)
    torch.testing.assert_close(weights.rmatvec(y), wide.T @ y)
    torch.testing.assert_close(weights.row_abs_sums(), wide.abs().sum(1))


@settings(deadline=None)
@given(SQUARES)
def test_a_selection_takes_rows_and_columns_in_its_order(matrix: torch.Tensor) -> None:
    order = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(len(matrix)))[: len(matrix) // 2 + 1]

    assert torch.equal(Weights.from_dense(matrix).select(order).dense(), matrix[order][:, order])


@settings(deadline=None)
@given(MATRICES)
def test_rows_and_columns_hold_their_edges(matrix: torch.Tensor) -> None:
    weights = Weights.from_dense(matrix)

    for i in range(len(matrix)):
        columns, values = weights.row(i)
        assert torch.equal(values, matrix[i, columns])
        assert len(columns) == int(matrix[i].count_nonzero())
    for j in range(matrix.shape[1]):
        rows, values = weights.column(j)
        assert torch.equal(values, matrix[rows, j])
        assert len(rows) == int(matrix[:, j].count_nonzero())


def test_blocks_are_asked_for_once_and_not_before_they_are_used() -> None:
    asked: list[int] = []

    def blocks() -> list[Block]:
        asked.append(1)
        return [Block(torch.tensor([1]), torch.tensor([0]), torch.ones(1, 1))]

    weights = Weights((3, 3), blocks)
    assert (weights.shape, asked) == ((3, 3), [])
    assert (weights.nnz, len(weights.row(1)[0]), asked) == (1, 1, [1])


def test_a_row_in_two_blocks_is_refused() -> None:
    block = Block(torch.tensor([1]), torch.tensor([0]), torch.ones(1, 1))

    with pytest.raises(ValueError, match="holds a row that an earlier block holds"):
        Weights((2, 2), [block, block]).row(1)


def test_an_edge_outside_the_matrix_is_refused() -> None:
    with pytest.raises(IndexError, match=r"column 5.*shape \(3, 3\)"):
        Weights.from_coo(torch.tensor([0]), torch.tensor([5]), torch.ones(1), (3, 3))


def test_an_edge_given_twice_is_added() -> None:
    twice = Weights.from_coo(torch.tensor([1, 1]), torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), (2, 2))

    assert twice.dense().tolist() == [[0.0, 0.0], [3.0, 0.0]]


def test_edges_as_coordinates_of_a_selection_keep_their_dtype() -> None:
    assert Weights.from_dense(torch.eye(2).double()).dtype == torch.float64
    assert Weights((2, 2), ()).dense().dtype == torch.float32
