"""The nodes of a table's rows, made when asked for."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, overload

from whence.results.keys import Node
from whence.results.runs import Run


class Keys(Sequence[Node]):
    """The nodes of a table's rows: a sequence that builds each node when asked for it.

    Args:
        runs: The rows, in order.

    Example:
        >>> keys = Keys([Run(Node("embed")), Run(Node("mlp.neuron", 0, 0), range(3072))])
        >>> len(keys), str(keys[3072])
        (3073, '0.mlp.neuron:3071')
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)
        self._ends = tuple(accumulate(len(run) for run in self.runs))

    @staticmethod
    def of(nodes: Iterable[Node]) -> "Keys":
        """The given nodes, one row each."""
        return Keys(Run(node) for node in nodes)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of a table with {len(self)} rows.")
        place = bisect_right(self._ends, row)
        return self.runs[place][row - self._ends[place] + len(self.runs[place])]

    def __iter__(self) -> Iterator[Node]:
        return (node for run in self.runs for node in run)

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and self._row(node) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys):
            return NotImplemented
        if self.runs == other.runs:
            return True
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        names = ", ".join(f"'{node}'" for node in ([*self] if len(self) < 4 else [*self[:2], "...", self[-1]]))
        return f"Keys({len(self)}: {names})"

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The row of a node, found without building the others.

        Args:
            value: The node.
            start: First row to look at.
            stop: Row to stop before; None looks to the end.

        Raises:
            ValueError: No such row.

        Example:
            >>> Keys([Run(Node("attn.head", 1, 0), range(12))]).index(Node("attn.head", 1, 5))
            5
        """
        row = self._row(value)
        if row is None or row not in range(*slice(start, stop).indices(len(self))):
            raise ValueError(f"'{value}' is not among these {len(self)} rows: {self!r}.")
        return row

    def _row(self, node: Node) -> int | None:
        for run, end in zip(self.runs, self._ends, strict=True):
            row = run.find(node)
            if row is not None:
                return end - len(run) + row
        return None
