"""Graph: through which features, step by step, a prompt led to its outputs.

    weights[target, source] = what the source adds to the target's pre-activation (or logit), everything else held

In whence's own convention each row sums to the number it explains, biases included; `certificate` holds what each sum
missed. Everything here is plain data on the CPU and opens without the model. Cost: that of the edges. It knows nothing
of how the weights were computed.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from whence.results import influence
from whence.results.certificate import Certificate
from whence.results.edges import WeightedEdge, between, strongest_entries
from whence.results.keys import Edge, LogitTarget, Node
from whence.results.kinds import of_kind
from whence.results.nodes import NodeTable
from whence.results.pruning import prune
from whence.results.weights import Weights

if TYPE_CHECKING:
    import matplotlib.figure
    import rich.table

__all__ = ["Certificate", "Graph", "NodeTable", "WeightedEdge", "Weights"]


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """Nodes, the edges between them, and what they explain.

    Args:
        nodes: Features by layer, position, feature; then errors and whole writes; tokens; constants; outputs last.
        weights: The edges, weights[target, source].
        logit_targets: The outputs explained, in the order of their nodes.
        logit_probabilities: The weight of each.
        vocab_size: Size of the vocabulary; indices from there on are virtual: directions that are no token.
        prompt: The prompt as text.
        input_tokens: Its token ids.
        token_texts: Its tokens as text.
        active_features: Layer, position and feature of every active feature, those without a node included.
        activation_values: Their activations.
        selected_features: The active features that are nodes, ascending.
        certificate: What the sum of each row missed.
        provenance: Where the graph comes from (model, dictionary, freezes, convention, versions ...), JSON-able.
        shares: For each node, the share of influence of it and stronger nodes in the graph this was pruned from;
            None in a graph that was not pruned, where it is computed when asked for.
        counts: In a mean, how many graphs have each edge.

    Raises:
        ValueError: Parts that do not belong together; names both sizes.

    Example:
        >>> graph = whence.Graph.load("runs/austin")  # doctest: +SKIP
        >>> graph.prune().into("output:262@9")[0]  # doctest: +SKIP
        WeightedEdge('2.mlp.feature:17@9 -> output:262@9', +3.120)
    """

    nodes: NodeTable
    weights: Weights
    logit_targets: tuple[LogitTarget, ...]
    logit_probabilities: Float[Tensor, " target"]
    vocab_size: int
    prompt: str
    input_tokens: Int[Tensor, " pos"]
    token_texts: tuple[str, ...]
    active_features: Int[Tensor, "active 3"]
    activation_values: Float[Tensor, " active"]
    selected_features: Int[Tensor, " selected"]
    certificate: Certificate = field(default_factory=Certificate)
    provenance: dict[str, Any] = field(default_factory=dict)
    shares: Float64[Tensor, " node"] | None = None
    counts: Weights | None = None

    def __post_init__(self) -> None:
        nodes = len(self.nodes)
        _check("weights", self.weights.shape, (nodes, nodes), "nodes × nodes")
        _check("logit_targets", len(self.logit_targets), len(self.nodes.of("output")), "one an output node")
        _check("logit_probabilities", len(self.logit_probabilities), len(self.logit_targets), "one a target")
        _check("token_texts", len(self.token_texts), len(self.input_tokens), "one an input token")
        features = int(of_kind(self.nodes, "feature").sum())
        _check("selected_features", len(self.selected_features), features, "one a feature node")

    def dense(self) -> Float[Tensor, "target source"]:
        """All weights as one matrix, nodes × nodes numbers.

        Example:
            >>> graph.prune().dense().shape  # doctest: +SKIP
            torch.Size([41, 41])
        """
        return self.weights.dense()

    @property
    def vocab_indices(self) -> list[int]:
        """The vocabulary index of each target, those past the vocabulary's end included."""
        return [target.vocab_idx for target in self.logit_targets]

    @property
    def has_virtual_indices(self) -> bool:
        """Whether a target is a direction rather than a token."""
        return any(index >= self.vocab_size for index in self.vocab_indices)

    @property
    def logit_token_ids(self) -> Int[Tensor, " target"]:
        """The token id of each target.

        Raises:
            ValueError: A target is no token; use `vocab_indices`.

        Example:
            >>> graph.logit_token_ids  # doctest: +SKIP
            tensor([262])
        """
        virtual = [target.token_str for target in self.logit_targets if target.vocab_idx >= self.vocab_size]
        if virtual:
            raise ValueError(
                f"targets {virtual} are directions, not tokens of the {self.vocab_size} in the vocabulary, so they "
                "have no token id. Use vocab_indices or logit_targets."
            )
        return torch.tensor(self.vocab_indices)

    @property
    def logit_tokens(self) -> Int[Tensor, " target"]:
        """The former name of `logit_token_ids`."""
        warnings.warn("Graph.logit_tokens is now logit_token_ids", DeprecationWarning, stacklevel=2)
        return self.logit_token_ids

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

    def prune(self, nodes: float = 0.8, edges: float = 0.98) -> "Graph":
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

    def diff(self, other: "Graph") -> "Graph":
        """This graph minus another: nodes matched by key, absent weights 0.

        Args:
            other: The graph to take away.

        Raises:
            ValueError: Vocabularies or virtual targets that do not match.

        Example:
            >>> texas.diff(ohio).edges(5)  # doctest: +SKIP
        """
        from whence.results.graph_compare import difference  # it makes graphs, so it cannot be imported by this module

        return difference(self, other)

    @staticmethod
    def mean(graphs: "Sequence[Graph]") -> "Graph":
        """The mean of graphs of one template: nodes matched by key, absent weights 0; `counts` has each edge's count.

        Args:
            graphs: At least one, of prompts of one length.

        Raises:
            ValueError: No graphs, or graphs of different lengths, vocabularies or virtual targets.

        Example:
            >>> whence.Graph.mean([texas, ohio]).counts.nnz  # doctest: +SKIP
            4021
        """
        from whence.results.graph_compare import mean

        return mean(graphs)

    @staticmethod
    def merge(parts: "Sequence[Graph]") -> "Graph":
        """The graph whose rows were solved in parts, in whatever order they come.

        Args:
            parts: All shards of one run, each with its own rows.

        Raises:
            ValueError: Parts of different graphs, a row in two of them, or one missing.

        Example:
            >>> whence.Graph.merge([first, second]).save("runs/austin")  # doctest: +SKIP
        """
        from whence.results.graph_merge import merge

        return merge(parts)

    def table(self, k: int = 15) -> "rich.table.Table":
        """A table for the terminal: the edges through which most influence flows, and the scores.

        Args:
            k: How many edges.

        Example:
            >>> rich.print(graph.table(5))  # doctest: +SKIP
        """
        from whence.results.graph_render import table

        return table(self, k)

    def plot(self, path: str | Path | None = None) -> "matplotlib.figure.Figure":
        """A picture of the graph, tokens by layers; prune it first, for a picture shows some fifty nodes well.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: A suffix that is none of those.

        Example:
            >>> figure = graph.prune().plot("graph.svg")  # doctest: +SKIP
        """
        from whence.results.graph_plot import plot

        return plot(self, path)

    def to_json(
        self, path: str | Path | None = None, *, slug: str | None = None, legacy_ids: bool = False
    ) -> dict[str, Any]:
        """The graph in the JSON of public viewers, every node and edge; prune it first.

        Args:
            path: Where to write it as well.
            slug: Its name in a viewer's address; None makes one of the prompt.
            legacy_ids: Error nodes as `0_{layer}_{position}`, for viewers that know no other; such an id may be that
                of a feature of layer 0 as well.

        Example:
            >>> graph.prune().to_json("austin.json", slug="austin")["metadata"]["slug"]  # doctest: +SKIP
            'austin'
        """
        from whence.results.graph_json import to_json

        return to_json(self, path, slug, legacy_ids)

    def to_html(self, path: str | Path, *, nodes: int = 400, edges: int = 4000) -> Path:
        """One page that opens from disk: the nodes by token and layer, their edges, a slider to prune.

        Args:
            path: The file to write.
            nodes: At most so many nodes, those with most influence; tokens and outputs always.
            edges: At most so many edges among them, those through which most influence flows.

        Example:
            >>> graph.to_html("austin.html")  # doctest: +SKIP
            PosixPath('austin.html')
        """
        from whence.results.graph_page import write_page

        return write_page(self, path, nodes, edges)

    def to_csv(self, path: str | Path) -> Path:
        """The edges as a table: source, target, weight; by target, then by source.

        Args:
            path: The file to write.

        Example:
            >>> graph.prune().to_csv("edges.csv")  # doctest: +SKIP
            PosixPath('edges.csv')
        """
        from whence.results.graph_files import write_csv

        return write_csv(self, path)

    def save(self, path: str | Path) -> Path:
        """The folder it was saved to: a description and safetensors files, bit-equal when loaded again.

        Args:
            path: Folder to make, or a result of whence to replace.

        Raises:
            FileFormatError: Something else is there; choose another path.

        Example:
            >>> graph.save("runs/austin")  # doctest: +SKIP
        """
        from whence.results.graph_files import save

        return save(self, path)

    @staticmethod
    def load(path: str | Path) -> "Graph":
        """A graph that `save` wrote; its weights are read, and their checksum taken, when they are first used.

        Args:
            path: The folder.

        Raises:
            FileFormatError: No graph, damaged, or of a newer version (upgrade whence).

        Example:
            >>> whence.Graph.load("runs/austin").nodes  # doctest: +SKIP
        """
        from whence.results.graph_files import load

        return load(path)

    @staticmethod
    def from_circuit_tracer(path: str | Path, tokenizer: Any = None) -> "Graph":
        """A graph that circuit-tracer saved as `.pt`; nothing in the file is run.

        Args:
            path: The file.
            tokenizer: Gives the tokens their texts, and the targets of old files theirs.

        Raises:
            FileFormatError: No such file of circuit-tracer's, or one that asks for code to be run.

        Example:
            >>> graph = whence.Graph.from_circuit_tracer("austin.pt")  # doctest: +SKIP
        """
        from whence.results.circuit_tracer import read

        return read(path, tokenizer)

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

    def __repr__(self) -> str:
        from whence.results.graph_render import line

        return line(self)

    def __str__(self) -> str:
        from whence.results.graph_render import text

        return text(self)

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def _repr_html_(self) -> str:
        from whence.results.graph_notebook import html

        return html(self)


def _check(name: str, size: object, wanted: object, rule: str) -> None:
    if size != wanted:
        raise ValueError(f"{name} has {size}, and {wanted} is called for: {rule}.")
