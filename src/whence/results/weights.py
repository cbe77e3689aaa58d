"""A sparse matrix weights[target, source] in dense blocks, made for graphs whose rows come in groups.

The rows of one layer and position have the same possible sources, so a group of them is one small dense matrix:

    weights[rows[i], columns[j]] = values[i, j]           an edge is an entry that is not zero

Cost: memory of the blocks, never of target × source; a product is one small product a block. It knows nothing of what
its rows are.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS_A_BLOCK = 64  # of a matrix that came without groups: enough for fast products, few enough to stay sparse


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of the matrix, over the columns in which any of them may be non-zero.

    Example:
        >>> Block(torch.tensor([2]), torch.tensor([0, 1]), torch.tensor([[0.5, -1.0]])).values.shape
        torch.Size([1, 2])
    """

    rows: Int[Tensor, " r"]
    columns: Int[Tensor, " c"]
    values: Float[Tensor, "r c"]

    def mapped(self, place: Int[Tensor, " node"]) -> "Block":
        """The block where node i has become node place[i]; those at −1 are dropped."""
        rows, columns = place[self.rows], place[self.columns]
        kept, among = (rows >= 0).nonzero().reshape(-1), (columns >= 0).nonzero().reshape(-1)
        return Block(rows[kept], columns[among], self._part(kept, among))

    def trimmed(self) -> "Block":
        """The block without rows and columns that are all zero."""
        edges = self.values != 0
        rows, columns = edges.any(1).nonzero().reshape(-1), edges.any(0).nonzero().reshape(-1)
        return Block(self.rows[rows], self.columns[columns], self._part(rows, columns))

    def _part(self, rows: Int[Tensor, " kept"], columns: Int[Tensor, " among"]) -> Float[Tensor, "kept among"]:
        values = self.values if len(rows) == len(self.rows) else self.values.index_select(0, rows)
        return values if len(columns) == len(self.columns) else values.index_select(1, columns)


class Weights:
    """The matrix; iterating gives its blocks.

    Args:
        shape: Number of targets and of sources.
        blocks: Each row in at most one of them; a row in none is empty. Or a function that gives them,
            called when they are first used.

    Example:
        >>> weights = Weights.from_dense(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        >>> weights.nnz, weights.row(1)[1].tolist()
        (1, [2.0])
    """

    def __init__(self, shape: tuple[int, int], blocks: Sequence[Block] | Callable[[], Sequence[Block]]) -> None:
        self.shape = shape
        self._given = blocks

    @staticmethod
    def from_dense(matrix: Float[Tensor, "target source"]) -> "Weights":
        """The matrix given in full, cut into groups of rows.

        Example:
            >>> Weights.from_dense(torch.eye(2)).nnz
            2
        """
        every = torch.arange(matrix.shape[1])
        rows = (matrix != 0).any(1).nonzero().reshape(-1)
        blocks = [Block(group, every, matrix[group]).trimmed() for group in rows.split(ROWS_A_BLOCK)]
        return Weights((matrix.shape[0], matrix.shape[1]), [block for block in blocks if len(block.rows)])

    @staticmethod
    def from_coo(
        rows: Int[Tensor, " edge"],
        columns: Int[Tensor, " edge"],
        values: Float[Tensor, " edge"],
        shape: tuple[int, int],
    ) -> "Weights":
        """The matrix given edge by edge; edges given twice are added.

        Raises:
            IndexError: An edge outside `shape`.

        Example:
            >>> Weights.from_coo(torch.tensor([1]), torch.tensor([0]), torch.tensor([2.0]), (2, 2)).dense().tolist()
            [[0.0, 0.0], [2.0, 0.0]]
        """
        for what, given, size in (("row", rows, shape[0]), ("column", columns, shape[1])):
            if len(given) and not 0 <= int(given.min()) <= int(given.max()) < size:
                raise IndexError(f"an edge has {what} {int(given.max())}, and the matrix has shape {shape}.")
        order = rows.argsort(stable=True)
        rows, columns, values = rows[order], columns[order], values[order]
        distinct, place = rows.unique_consecutive(return_inverse=True)
        blocks: list[Block] = []
        for first in range(0, len(distinct), ROWS_A_BLOCK):
            low, high = torch.searchsorted(place, torch.tensor([first, first + ROWS_A_BLOCK])).tolist()
            among, column = columns[low:high].unique(return_inverse=True)
            group = distinct[first : first + ROWS_A_BLOCK]
            dense = values.new_zeros(len(group), len(among))
            dense.index_put_((place[low:high] - first, column), values[low:high], accumulate=True)
            blocks.append(Block(group, among, dense))
        return Weights(shape, blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    def __repr__(self) -> str:
        return f"Weights({self.shape[0]} × {self.shape[1]}, {self.nnz} edges in {len(self._blocks)} blocks)"

    @cached_property
    def _blocks(self) -> Sequence[Block]:
        return self._given() if callable(self._given) else self._given

    @cached_property
    def nnz(self) -> int:
        """The number of edges."""
        return sum(int(block.values.count_nonzero()) for block in self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values; float32 of a matrix without blocks."""
        return next((block.values.dtype for block in self), torch.float32)

    def dense(self) -> Float[Tensor, "target source"]:
        """The whole matrix, target × source numbers: for small graphs and for comparison."""
        out = torch.zeros(self.shape, dtype=self.dtype)
        for block in self:
            out[block.rows[:, None], block.columns] = block.values
        return out

    def coo(self) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"], Float[Tensor, " edge"]]:
        """Rows, columns and values of all edges, by row and then by column."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for block in self:
            row, column = block.values.nonzero(as_tuple=True)
            found.append((block.rows[row], block.columns[column], block.values[row, column]))
        none = torch.zeros(0, dtype=torch.int64)
        if not found:
            return none, none, torch.zeros(0)
        rows, columns, values = (torch.cat(part) for part in zip(*found, strict=True))
        order = (rows * self.shape[1] + columns).argsort()
        return rows[order], columns[order], values[order]

    def to_sparse_csr(self) -> Tensor:
        """The matrix as torch's own compressed rows."""
        rows, columns, values = self.coo()
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), rows.bincount(minlength=self.shape[0]).cumsum(0)])
        with warnings.catch_warnings():  # that this kind of tensor is young is no news to who asks for one
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(starts, columns, values, self.shape, check_invariants=True)

    def row(self, i: int) -> tuple[Int[Tensor, " edge"], Float[Tensor, " edge"]]:
        """Columns and values of the edges of one row."""
        number = int(self._block_of[i])
        if number < 0:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=self.dtype)
        block = self._blocks[number]
        values = block.values[(block.rows == i).nonzero()[0, 0]]
        kept = values != 0
        return block.columns[kept], values[kept]

    def column(self, j: int) -> tuple[Int[Tensor, " edge"], Float[Tensor, " edge"]]:
        """Rows and values of the edges of one column."""
        found = [(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=self.dtype))]
        for block in self:
            place = (block.columns == j).nonzero()
            if len(place):
                values = block.values[:, place[0, 0]]
                found.append((block.rows[values != 0], values[values != 0]))
        rows, values = (torch.cat(part) for part in zip(*found, strict=True))
        order = rows.argsort()
        return rows[order], values[order]

    def select(self, index: Int[Tensor, " kept"]) -> "Weights":
        """The matrix of some of the nodes, in the order given; its rows and columns must be the same nodes."""
        place = torch.full((max(self.shape),), -1, dtype=torch.int64)
        place[index] = torch.arange(len(index))
        return self.mapped(place, len(index))

    def mapped(self, place: Int[Tensor, " node"], size: int) -> "Weights":
        """The matrix where node i has become node place[i] of `size` nodes; those at −1 are dropped."""
        blocks = (block.mapped(place) for block in self)
        return Weights((size, size), [block for block in blocks if block.values.numel()])

    def changed(self, change: Callable[[Block], Tensor]) -> "Weights":
        """The matrix with the values `change(block)` in each block, without the rows and columns that became zero."""
        blocks = (Block(block.rows, block.columns, change(block)).trimmed() for block in self)
        return Weights(self.shape, [block for block in blocks if len(block.rows)])

    def matvec(self, x: Float[Tensor, " source"]) -> Float[Tensor, " target"]:
        """W x: for each target, the sum over its sources."""
        out = x.new_zeros(self.shape[0])
        for block in self:
            out[block.rows] = block.values.to(x.dtype) @ x[block.columns]
        return out

    def rmatvec(self, y: Float[Tensor, " target"]) -> Float[Tensor, " source"]:
        """Wᵀ y: for each source, the sum over its targets."""
        out = y.new_zeros(self.shape[1])
        for block in self:
            out.index_add_(0, block.columns, y[block.rows] @ block.values.to(y.dtype))
        return out

    def row_abs_sums(self) -> Float[Tensor, " target"]:
        """Σ|row|, in float64."""
        out = torch.zeros(self.shape[0], dtype=torch.float64)
        for block in self:
            out[block.rows] = torch.linalg.vector_norm(block.values, 1, dim=1, dtype=torch.float64)
        return out

    @cached_property
    def _block_of(self) -> Int[Tensor, " target"]:
        """For each row, the number of its block, or −1."""
        out = torch.full((self.shape[0],), -1, dtype=torch.int64)
        for number, block in enumerate(self):
            if (out[block.rows] >= 0).any():
                raise ValueError(f"block {number} of {self.shape[0]} rows holds a row that an earlier block holds.")
            out[block.rows] = number
        return out
