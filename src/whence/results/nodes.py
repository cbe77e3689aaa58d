"""The nodes of a graph as six columns of integers: a graph of 30,000 nodes builds a `Node` when it is asked for one.

    node i = names[name[i]], layer[i], index[i] (/ inner[i]), position[i], ENDS[end[i]]      −1 stands for "has none"

Cost: finding a node compares columns, with no dictionary of keys to build. It knows nothing of edges, and nothing of
source tokens, which no node of a graph or a circuit has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.results.keys import Node
from whence.results.names import ENDS

FIELDS = ("name", "layer", "index", "inner", "position", "end")


@dataclass(frozen=True, eq=False, repr=False)
class NodeTable:
    """Nodes by number; `table[i]` is the i-th.

    Args:
        names: The distinct names that occur.
        name: For each node, the place of its name in `names`.
        layer: Block it belongs to, or −1.
        index: Unit, token id, or the expert of an expert's neuron; or −1.
        inner: Neuron of an expert, or −1.
        position: Absolute position in the prompt, or −1.
        end: Which input of a unit is meant, by its place in `whence.results.names.ENDS`, or −1.

    Example:
        >>> table = NodeTable.from_nodes([Node("mlp.feature", 2, 17, position=5), Node("bias")])
        >>> str(table[0]), table.find("bias")
        ('2.mlp.feature:17@5', 1)
    """

    names: tuple[str, ...]
    name: Int[Tensor, " node"]
    layer: Int[Tensor, " node"]
    index: Int[Tensor, " node"]
    inner: Int[Tensor, " node"]
    position: Int[Tensor, " node"]
    end: Int[Tensor, " node"]

    @staticmethod
    def from_columns(names: Iterable[str], columns: Int[Tensor, "field node"]) -> "NodeTable":
        """The table whose columns were stacked; without the last one no node has an end.

        Args:
            names: The distinct names that occur.
            columns: What `columns` gave, or its first five rows.

        Raises:
            ValueError: Another number of rows.

        Example:
            >>> len(NodeTable.from_columns(["bias"], torch.tensor([[0], [-1], [-1], [-1], [-1]])))
            1
        """
        if not len(FIELDS) - 1 <= len(columns) <= len(FIELDS):
            raise ValueError(f"nodes have {len(columns)} columns; they are {', '.join(FIELDS)}, the last one optional.")
        ends = [] if len(columns) == len(FIELDS) else [torch.full_like(columns[0], -1)]
        return NodeTable(tuple(names), *columns.contiguous(), *ends)

    @staticmethod
    def from_nodes(nodes: Iterable[Node]) -> "NodeTable":
        """The table of the given nodes.

        Raises:
            ValueError: A node with a source token.

        Example:
            >>> len(NodeTable.from_nodes([Node("embed", index=262, position=0)]))
            1
        """
        names: dict[str, int] = {}
        rows = [_row(node, names) for node in nodes]
        return NodeTable.from_columns(names, torch.tensor(rows, dtype=torch.int64).reshape(-1, len(FIELDS)).T)

    def __len__(self) -> int:
        return len(self.name)

    def __getitem__(self, row: int) -> Node:
        name, layer, index, inner, position, end = (getattr(self, field)[row].item() for field in FIELDS)
        return self._node(name, layer, index, inner, position, end)

    def __iter__(self) -> Iterator[Node]:
        return (self._node(*row) for row in self.columns().T.tolist())

    def __repr__(self) -> str:
        shown = [*self] if len(self) < 4 else [self[0], self[1], "...", self[len(self) - 1]]
        return f"NodeTable({len(self)}: {', '.join(map(str, shown))})"

    def columns(self) -> Int[Tensor, "6 node"]:
        """Name, layer, index, inner, position and end, stacked."""
        return torch.stack([getattr(self, field) for field in FIELDS])

    def find(self, node: Node | str) -> int:
        """The number of a node.

        Args:
            node: The node, or its key.

        Raises:
            KeyError: No such node; names those most like it. ValueError: no node key.

        Example:
            >>> NodeTable.from_nodes([Node("bias")]).find("bias")
            0
        """
        node = Node.parse(node) if isinstance(node, str) else node
        wanted = torch.tensor(_row(node, {name: place for place, name in enumerate(self.names)}))
        alike = (self.columns() == wanted[:, None]).int()
        found = (alike.sum(0) == len(FIELDS)).nonzero()
        if len(found):
            return int(found[0])
        weight = torch.tensor([8, 3, 4, 2, 3, 2])[:, None]  # the kind of thing first, then which one, then where
        near = (alike * weight).sum(0).topk(min(3, len(self))).indices.tolist()
        hint = f" Near it are {', '.join(str(self[row]) for row in near)}." if near else ""
        raise KeyError(f"{node} is not among these {len(self)} nodes.{hint}")

    def of(self, *names: str) -> Int[Tensor, " found"]:
        """The numbers of all nodes with these names, ascending.

        Example:
            >>> NodeTable.from_nodes([Node("bias"), Node("rest")]).of("rest").tolist()
            [1]
        """
        return self.named(lambda name: name in names).nonzero().reshape(-1)

    def named(self, chosen: Any) -> Tensor:
        """For each node, whether `chosen(its name)`."""
        answers = torch.tensor([bool(chosen(name)) for name in self.names], dtype=torch.bool)
        return answers[self.name]

    def select(self, index: Int[Tensor, " kept"]) -> "NodeTable":
        """The table of some of the nodes, in the order given."""
        return NodeTable(self.names, *(getattr(self, field)[index] for field in FIELDS))

    def _node(self, name: int, layer: int, index: int, inner: int, position: int, end: int) -> Node:
        whole = None if index < 0 else index if inner < 0 else (index, inner)
        which = None if end < 0 else ENDS[end]
        return Node(self.names[name], None if layer < 0 else layer, whole, which, None if position < 0 else position)


def _row(node: Node, names: dict[str, int]) -> list[int]:
    if node.source is not None:
        raise ValueError(f"'{node}' has a source token, which the nodes of a graph have not.")
    index, inner = node.index if isinstance(node.index, tuple) else (node.index, None)
    numbers = [-1 if number is None else number for number in (node.layer, index, inner, node.position)]
    return [names.setdefault(node.name, len(names)), *numbers, -1 if node.end is None else ENDS.index(node.end)]
