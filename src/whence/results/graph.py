"""Graph: through which features, step by step, a prompt led to its outputs.

    weights[target, source] = what the source adds to the target's pre-activation (or logit), everything else held

In whence's own convention each row sums to the number it explains, biases included; `certificate` holds what each sum
missed. Everything here is plain data on the CPU and opens without the model. Cost: that of the edges. It knows nothing
of how the weights were computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whence.results import circuit_tracer, graph_compare, graph_files, graph_merge
from whence.results.certificate import Certificate
from whence.results.edges import WeightedEdge
from whence.results.graph_views import GraphViews
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

__all__ = ["Certificate", "Graph", "NodeTable", "WeightedEdge", "Weights"]


@dataclass(frozen=True, eq=False, repr=False)
class Graph(GraphViews):
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

    def diff(self, other: "Graph") -> "Graph":
        """This graph minus another: nodes matched by key, absent weights 0.

        Args:
            other: The graph to take away.

        Raises:
            ValueError: Vocabularies or virtual targets that do not match.

        Example:
            >>> texas.diff(ohio).edges(5)  # doctest: +SKIP
        """
        return graph_compare.difference(self, other)

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
        return graph_compare.mean(graphs)

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
        return graph_merge.merge(parts)

    def save(self, path: str | Path) -> Path:
        """The folder it was saved to: a description and safetensors files, bit-equal when loaded again.

        Args:
            path: Folder to make, or a result of whence to replace.

        Raises:
            FileFormatError: Something else is there; choose another path.

        Example:
            >>> graph.save("runs/austin")  # doctest: +SKIP
        """
        return graph_files.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "Graph":
        """A graph that `save` wrote; its weights are read, and their checksum taken, when they are first used.

        Args:
            path: The folder.

        Raises:
            FileFormatError: No graph, damaged, or of a newer version (upgrade whence).

        Example:
            >>> whence.Graph.load("runs/austin").nodes  # doctest: +SKIP
        """
        return graph_files.load(cls, path)

    @classmethod
    def from_circuit_tracer(cls, path: str | Path, tokenizer: Any = None) -> "Graph":
        """A graph that circuit-tracer saved as `.pt`; nothing in the file is run.

        Args:
            path: The file.
            tokenizer: Gives the tokens their texts, and the targets of old files theirs.

        Raises:
            FileFormatError: No such file of circuit-tracer's, or one that asks for code to be run.

        Example:
            >>> graph = whence.Graph.from_circuit_tracer("austin.pt")  # doctest: +SKIP
        """
        return circuit_tracer.read(cls, path, tokenizer)
