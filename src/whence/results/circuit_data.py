"""CircuitData: which features, heads or neurons carry a behaviour over many examples, and along which direct edges.

    effects[u]    = change of the metric when u goes from its clean value to the baseline, mean over examples
    weights[d, u] = the part of it that goes directly from u to d, everything between them held

Everything is plain data on the CPU and opens without the model. Cost: that of the nodes and edges. It knows nothing of
how the numbers were computed; what needs the model is for a subclass, and methods that cut or combine keep the class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from whence.results import (
    circuit_compare,
    circuit_cutting,
    circuit_files,
    circuit_layout,
    circuit_mib,
    circuit_names,
    circuit_stability,
)
from whence.results.circuit_samples import Samples
from whence.results.circuit_spread import Stability
from whence.results.circuit_views import CircuitViews

__all__ = ["CircuitData", "Samples", "Stability"]

Made = TypeVar("Made", bound="CircuitData")


@dataclass(frozen=True, eq=False, repr=False)
class CircuitData(CircuitViews):
    """Nodes with effects, the direct edges between them, and what each example said.

    Args:
        nodes: In forward order of sites; in a site units ascending, its error last; positions ascending within a unit
            (numbers of slots, none where positions are summed). The node `metric` is last.
        effects: The effect of each node, mean over examples; of `metric`, the total effect.
        weights: The edges, weights[target, source], mean over examples; none where edges were not asked for.
        slots: Names of positions; empty where positions are summed.
        examples: How many there were.
        samples: What each example said; None in imported and combined circuits.
        provenance: Where the circuit comes from (model, dictionaries, metric, method, thresholds ...), JSON-able.
        names: What people call a node, by its key without position.

    Raises:
        ValueError: Parts that do not belong together; names both sizes.

    Example:
        >>> circuit = CircuitData.load("runs/agreement")  # doctest: +SKIP
        >>> circuit.threshold(node=0.1).into("metric")[0]  # doctest: +SKIP
        WeightedEdge('2.resid_post.feature:7 -> metric', -1.071)
    """

    def threshold(self: Made, *, node: float | None = None, edge: float | None = None) -> Made:
        """The part with |effect| > node and |weight| > edge; a node may stay without edges, the metric always does.

        Args:
            node: What the size of an effect must exceed; None keeps every node.
            edge: What the size of a weight must exceed; None keeps every edge between kept nodes.

        Raises:
            ValueError: A negative threshold.

        Example:
            >>> small = circuit.threshold(node=0.1, edge=0.01)  # doctest: +SKIP
        """
        return circuit_cutting.threshold(self, node, edge)

    def top(self: Made, k: int) -> Made:
        """The k nodes with the largest effects, the metric, and the edges among them.

        Args:
            k: How many nodes beside the metric.

        Raises:
            ValueError: A negative number.

        Example:
            >>> len(circuit.top(10).nodes)  # doctest: +SKIP
            11
        """
        return circuit_cutting.top(self, k)

    def summed(self: Made) -> Made:
        """The circuit with effects and edges summed over positions; without samples.

        Example:
            >>> circuit.summed().slots  # doctest: +SKIP
            ()
        """
        return circuit_layout.summed(self)

    def diff(self: Made, other: Made) -> Made:
        """This circuit minus another: nodes matched by key, absent numbers 0; without samples.

        Args:
            other: The circuit to take away.

        Raises:
            ValueError: Circuits with other slots.

        Example:
            >>> trained.diff(untrained).edges(5)  # doctest: +SKIP
        """
        return circuit_compare.difference(self, other)

    @staticmethod
    def mean(circuits: Sequence[Made]) -> Made:
        """The mean over the examples of all circuits: nodes matched by key, absent numbers 0; without samples.

        Args:
            circuits: At least one.

        Raises:
            ValueError: No circuits, circuits without examples, or circuits with other slots.

        Example:
            >>> CircuitData.mean([simple, relative_clause]).examples  # doctest: +SKIP
            200
        """
        return circuit_compare.mean(circuits)

    def annotate(self: Made, names: str | Path | Mapping[str, str]) -> Made:
        """The circuit with names for its nodes; `provenance["names"]` counts what was used and what was not.

        Args:
            names: A file of JSON lines, in the published form (Component, Layer, Feature, Annotation) or in whence's
                ({"key": "2.resid_post.feature:7", "name": "plural subject"}); or names by key.

        Raises:
            FileFormatError: No such file, or one that is no text.

        Example:
            >>> circuit.annotate({"2.resid_post.feature:7": "plural subject"}).names  # doctest: +SKIP
            {'2.resid_post.feature:7': 'plural subject'}
        """
        return circuit_names.annotated(self, names)

    def stability(
        self,
        n_resamples: int = 1000,
        seed: int = 0,
        *,
        node_threshold: float | None = None,
        edge_threshold: float | None = None,
        level: float = 0.95,
    ) -> Stability:
        """How the circuit would change with other examples: a bootstrap over those it was made from.

        Args:
            n_resamples: How many draws.
            seed: Of the draws.
            node_threshold: What the size of an effect must exceed; None cuts nodes as the circuit was cut: at its own
                threshold, and to its strongest nodes where it is the top k of another.
            edge_threshold: The same for edges; None is the circuit's own.
            level: Share of the resamples inside the intervals.

        Raises:
            ValueError: A circuit without samples, no threshold to be found, nodes that were kept by single examples
                (gate="per_example") and no node_threshold, or numbers out of range.

        Example:
            >>> circuit.stability().node_jaccard  # doctest: +SKIP
            (0.81, 0.69, 0.92)
        """
        return circuit_stability.stability(self, n_resamples, seed, node_threshold, edge_threshold, level)

    def save(self, path: str | Path) -> Path:
        """The folder it was saved to: a description and safetensors files, bit-equal when loaded again.

        Args:
            path: Folder to make, or a result of whence to replace.

        Raises:
            FileFormatError: Something else is there; choose another path.

        Example:
            >>> circuit.save("runs/agreement")  # doctest: +SKIP
        """
        return circuit_files.save(self, path)

    @classmethod
    def load(cls: type[Made], path: str | Path) -> Made:
        """A circuit that `save` wrote; edges and samples are read, and their checksum taken, when they are first used.

        Args:
            path: The folder.

        Raises:
            FileFormatError: No circuit, damaged, or of a newer version (upgrade whence).

        Example:
            >>> CircuitData.load("runs/agreement").nodes  # doctest: +SKIP
        """
        return circuit_files.load(cls, path)

    def to_mib(
        self, path: str | Path, *, scores: "CircuitData | None" = None, cfg: Mapping[str, Any] | None = None
    ) -> Path:
        """The circuit as an edge file of MIB's: every edge of the architecture, those of this circuit marked.

        Args:
            path: The file to write.
            scores: A circuit that gives the scores of edges this one does not have; None writes 0 for them.
            cfg: n_layers, n_heads, parallel_attn_mlp and d_model; None where the provenance has them, as `cfg`.

        Raises:
            ValueError: No sizes; nodes that such a file cannot name; or edges into whole heads, for which
                `whence.edge_attribution(..., by_input=True)` is the remedy.

        Example:
            >>> circuit.threshold(edge=0.1).to_mib("circuit.json", scores=circuit)  # doctest: +SKIP
        """
        return circuit_mib.write(self, path, scores, cfg)

    @classmethod
    def from_mib(cls: type[Made], path: str | Path, *, selected: bool = False) -> Made:
        """The circuit in an edge file of MIB's (JSON).

        Args:
            path: The file.
            selected: Only what the file marks as in the circuit; else every edge with its score.

        Raises:
            FileFormatError: No such file, or a pickle.

        Example:
            >>> CircuitData.from_mib("importances.json").edges(3)  # doctest: +SKIP
        """
        return circuit_mib.read(cls, path, selected)
