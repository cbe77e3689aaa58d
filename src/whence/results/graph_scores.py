"""What of a graph matters: influence of nodes and edges, scores, and the part that carries most.

See `influence.py` and `pruning.py` for the formulas. Cost: a read of the weights, once for all that follows. It knows
nothing of files or pictures.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from whence.results import influence
from whence.results.edges import WeightedEdge, strongest_entries
from whence.results.graph_data import GraphData
from whence.results.keys import Edge, Node
from whence.results.kinds import of_kind
from whence.results.pruning import prune

Scored = TypeVar("Scored", bound="ScoredGraph")


class ScoredGraph(GraphData):
    """A graph that knows what matters in it.

    Example:
        >>> graph.prune(nodes=0.6).replacement_score()  # doctest: +SKIP
        0.52
    """

    def edges(self, k: int = 10) -> tuple[WeightedEdge, ...]:
        """The k edges through which most influence flows, first the strongest.

        Args:
            k: How many.

        Example:
            >>> len(graph.edges(3))  # doctest: +SKIP
            3
        """
        scores = influence.edge_scores(self.weights, self._reached)
        rows, columns, values = strongest_entries(self.weights, scores, k)
        ends = zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
        return tuple(WeightedEdge(Edge(self.nodes[source], self.nodes[row]), weight) for source, row, weight in ends)

    def influence(self) -> Float64[Tensor, " node"]:
        """For each node, the share of the targets' inputs that comes by way of it, weighted by the targets' weights.

        Example:
            >>> graph.nodes[int(graph.influence().argmax())]  # doctest: +SKIP
        """
        return self._reached - self._targets

    def cumulative_influence(self) -> Float64[Tensor, " node"]:
        """For each node, the share of all influence that it and stronger nodes have: small for those that matter.

        In a pruned graph these are the shares of the graph it was pruned from.
        """
        return influence.cumulative_shares(self.influence()) if self.shares is None else self.shares

    def prune(self: Scored, nodes: float = 0.8, edges: float = 0.98) -> Scored:
        """The part of the graph that carries these shares of influence.

        Args:
            nodes: Share of influence of the nodes to keep, 0 to 1. Tokens, constants and outputs are always kept.
            edges: Share of influence of the edges among them to keep, 0 to 1.

        Raises:
            ValueError: A share outside 0 to 1.

        Example:
            >>> small = graph.prune(nodes=0.6)  # doctest: +SKIP
        """
        for name, share in (("nodes", nodes), ("edges", edges)):
            if not 0 <= share <= 1:
                raise ValueError(f"prune({name}={share}): a share of influence is between 0 and 1.")
        kept = prune(self.nodes, self.weights, self._targets, self.influence(), nodes, edges)
        shares = kept.shares if self.shares is None else self.shares
        part = {"nodes": nodes, "edges": edges, "of_nodes": len(self.nodes)}
        return replace(
            self,
            nodes=self.nodes.select(kept.index),
            weights=kept.weights,
            selected_features=self.selected_features[self._feature_rank(kept.index)],
            certificate=self.certificate.select(kept.index, len(self.nodes)),
            provenance=self.provenance | {"pruned": part},
            shares=shares[kept.index],
            counts=None if self.counts is None else self.counts.select(kept.index),
        )

    def replacement_score(self, nodes: Iterable[Node | str] | None = None) -> float:
        """The share of influence that begins at tokens and positions rather than at errors, 0 to 1.

        Constants and `rest` are in neither sum; so is a whole write at position 0. The score is 0 where no influence
        reaches a token or an error.

        Args:
            nodes: The features of a subgraph: every other feature counts as an error. None for all.

        Raises:
            KeyError: A node that is not in the graph. ValueError: One that is no feature.

        Example:
            >>> graph.replacement_score(nodes=["2.mlp.feature:17@5"])  # doctest: +SKIP
            0.31
        """
        return influence.replacement_score(self.nodes, self._targets, self.weights, self._expanded(nodes))

    def completeness_score(self, nodes: Iterable[Node | str] | None = None) -> float:
        """The share of the nodes' inputs, weighted by influence, that does not come from errors, 0 to 1.

        Over the nodes that have a row; with convention "circuit-tracer" in `provenance`, over all nodes, where tokens
        and errors count as complete. The score is 0 where no target has a weight.

        Args:
            nodes: The features of a subgraph: every other feature counts as an error. None for all.

        Raises:
            KeyError: A node that is not in the graph. ValueError: One that is no feature.

        Example:
            >>> graph.completeness_score()  # doctest: +SKIP
            0.87
        """
        rows_only = self.provenance.get("convention") != "circuit-tracer"
        return influence.completeness_score(
            self.nodes, self._targets, self.weights, self._expanded(nodes), rows_only=rows_only
        )

    @cached_property
    def _targets(self) -> Float64[Tensor, " node"]:
        """w: the size of each target's weight, at its node."""
        out = torch.zeros(len(self.nodes), dtype=torch.float64)
        out[self.nodes.of("output")] = self.logit_probabilities.double().abs()
        return out

    @cached_property
    def _reached(self) -> Float64[Tensor, " node"]:
        """I + w."""
        return influence.influence(self.nodes, self.weights, self._targets) + self._targets

    def _expanded(self, nodes: Iterable[Node | str] | None) -> Bool[Tensor, " node"]:
        """Which nodes' rows count: all but those of features that a subgraph leaves out."""
        if nodes is None:
            return torch.ones(len(self.nodes), dtype=torch.bool)
        features = of_kind(self.nodes, "feature")
        expanded = ~features
        for node in nodes:
            row = self.nodes.find(node)
            if not features[row]:
                raise ValueError(f"{node} is no feature; a subgraph is given by its features, the rest stays as it is.")
            expanded[row] = True
        return expanded

    def _feature_rank(self, index: Int[Tensor, " kept"]) -> Int[Tensor, " selected"]:
        """The kept features, by their number among the features."""
        features = of_kind(self.nodes, "feature")
        return (features.cumsum(0) - 1)[index[features[index]]]
