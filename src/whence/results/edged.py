"""What graphs and circuits have in common: nodes, weighted edges between them, and the edges of one node.

    weights[target, source] = what goes from the source to the target

Cost: that of the edges looked at. It knows nothing of what a weight means.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.edges import WeightedEdge, between
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


class Edged:
    """Something with nodes and edges.

    Example:
        >>> graph.into("output:262@9")[0].weight  # doctest: +SKIP
        3.12
    """

    nodes: NodeTable
    weights: Weights

    def dense(self) -> Float[Tensor, "target source"]:
        """All weights as one matrix, nodes × nodes numbers.

        Example:
            >>> graph.prune().dense().shape  # doctest: +SKIP
            torch.Size([41, 41])
        """
        return self.weights.dense()

    def into(self, node: Node | str) -> tuple[WeightedEdge, ...]:
        """The edges into a node, strongest first.

        Args:
            node: The node, or its key.

        Raises:
            KeyError: No such node; names those most like it.

        Example:
            >>> graph.into("output:262@9")[0].weight  # doctest: +SKIP
            3.12
        """
        row = self.nodes.find(node)
        columns, values = self.weights.row(row)
        return between(self.nodes, columns, torch.full_like(columns, row), values)

    def out_of(self, node: Node | str) -> tuple[WeightedEdge, ...]:
        """The edges out of a node, strongest first.

        Args:
            node: The node, or its key.

        Raises:
            KeyError: No such node; names those most like it.

        Example:
            >>> graph.out_of("embed:262@9")[0].target  # doctest: +SKIP
            Node(name='mlp.feature', layer=0, index=17, end=None, position=9, source=None)
        """
        column = self.nodes.find(node)
        rows, values = self.weights.column(column)
        return between(self.nodes, torch.full_like(rows, column), rows, values)
