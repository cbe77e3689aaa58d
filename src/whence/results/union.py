"""Several tables of nodes as one: nodes matched by key, and where each table's nodes are in it.

Cost: a sort of all nodes. It knows nothing of edges.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from whence.results.nodes import NodeTable


def union(
    tables: Sequence[NodeTable], order: Callable[[NodeTable], Int[Tensor, " node"]]
) -> tuple[NodeTable, list[Int[Tensor, " _"]]]:
    """All nodes, each once, and for each table the places of its nodes.

    Args:
        tables: At least one.
        order: For a table, its rows in the order they shall have.

    Example:
        >>> one, other = NodeTable.from_nodes([Node("bias")]), NodeTable.from_nodes([Node("rest"), Node("bias")])
        >>> nodes, places = union([one, other], lambda table: torch.arange(len(table)))
        >>> [str(nodes[int(place)]) for place in places[1]]
        ['rest', 'bias']
    """
    names = tuple(dict.fromkeys(name for table in tables for name in table.names))
    columns = [_renamed(table, names) for table in tables]
    distinct, inverse = torch.cat(columns, 1).unique(dim=1, return_inverse=True)
    nodes = NodeTable.from_columns(names, distinct)
    rank = order(nodes)
    places = rank.argsort()[inverse].split([len(table) for table in tables])
    return nodes.select(rank), list(places)


def _renamed(table: NodeTable, names: tuple[str, ...]) -> Int[Tensor, "6 node"]:
    columns = table.columns()
    if len(table):
        columns[0] = torch.tensor([names.index(name) for name in table.names])[columns[0]]
    return columns
