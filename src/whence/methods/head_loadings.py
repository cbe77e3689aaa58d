"""Head loadings: which attention heads carried an edge of an attribution graph?

    weights[t, s] = direct + sum over layers m and heads h of loading(m, h)

Exact, and complete over all layers: every path from source to target counts once, at the head nearest the source or, on
request, nearest the target (engine.head_loadings has the derivation). Each edge is solved anew as a row of the graph,
and parts that do not sum to it are refused.
Source: Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions".

Cost: one forward pass, and about two rows of an attribution graph per target (by source), or one per source and one per
target. Knows nothing of why a head looked where it did; that is `whence.qk_attribution`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.head_loadings import Parts, Reading, row_of, split_by_source, split_by_target
from whence.engine.linearize import Linearized, linearize
from whence.engine.source_nodes import group_of, source_table, writes_of
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.methods.graph import bos_positions, one_prompt, units_of
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.head_loadings import HeadLoadings
from whence.results.keys import Edge, Node
from whence.targets.attribution import AttributionTargets


def head_loadings(
    model: Model,
    dictionary: Any,
    prompt: Any,
    edges: Iterable[Edge | tuple[Node | str, Node | str]],
    *,
    by: str = "source",
    targets: Any = None,
    progress: Progress = silent,
) -> HeadLoadings:
    """Edges of the prompt's attribution graph, split over heads.

    Args:
        model: the model.
        dictionary: as for `attribution_graph`.
        prompt: as for `attribution_graph`; of a graph that is there, `graph.input_tokens`.
        edges: (source, target) pairs of node keys, e.g. ("embed:262@3", "2.mlp.feature:17@5").
        by: where a path that crosses several heads counts: at the head nearest its "source", the first to move what the
            source wrote, or nearest its "target".
        targets: as for `attribution_graph`, where edges end at its virtual outputs; tokens need none.
        progress: told of targets (or sources) done.

    Returns:
        Loadings of every head, the part of each edge that no head carries, and the edges' weights.

    Raises:
        ValueError: no edges; a source or target that this prompt does not have, or that has no row.
        KeyError: a node that is not there; names those most like it.
        UnsupportedModelError: a model whose attention cannot be held.
        LedgerError: parts that do not sum to their edge.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> transcoders = whence.load_dictionary(dictionary_path("transcoders"))
        >>> graph = whence.attribution_graph(model, transcoders, PROMPT, [" Austin"], max_nodes=4)
        >>> edge = (graph.nodes[0], graph.nodes[len(graph.nodes) - 1])
        >>> whence.head_loadings(model, transcoders, PROMPT, [edge]).values.shape
        torch.Size([16, 1])
    """
    wanted = [_edge(edge) for edge in edges]
    if by not in ("source", "target"):
        raise ValueError(f"by={by!r}; it is 'source' or 'target'")
    if not wanted:
        raise ValueError("edges= is empty; give (source, target) pairs of node keys")
    batch, last = one_prompt(model, prompt, _last(wanted))
    units = units_of(dictionary)
    bos = bos_positions(model, batch, None)
    linear = linearize(model, batch, units, position=last, bos=bos)
    job = _Job(model, linear, wanted, targets)
    values, direct, weights, magnitude = job.split(by, progress)
    gap = (weights.double() - direct.double() - values.double().sum(0)).abs()
    refuse_gap(gap, magnitude, tolerance_of(model.dtype))
    about = {"dictionary": units.describe(), "by": by, "bos": list(bos)}
    frozen = {"norms": True, "attention": True, "mlps": "replaced"}
    return HeadLoadings(
        heads=job.heads(),
        edges=tuple(wanted),
        values=values.cpu(),
        direct=direct.cpu(),
        weights=weights.cpu(),
        by=by,
        provenance=provenance(model, "head_loadings", **about, frozen=frozen),
    )


def _edge(given: Edge | tuple[Node | str, Node | str]) -> Edge:
    source, target = (given.source, given.target) if isinstance(given, Edge) else given
    edge = Edge(*(Node.parse(node) if isinstance(node, str) else node for node in (source, target)))
    if edge.target.position is None:
        raise ValueError(f"{edge}: the target needs a position, as in '2.mlp.feature:17@5' or 'output:262@9'")
    if edge.source.name in ("bias", "rest"):
        raise ValueError(f"{edge}: {edge.source} sums over positions and layers; name single sources")
    return edge


def _last(edges: list[Edge]) -> int:
    return max(edge.target.position or 0 for edge in edges)


class _Job:
    """The edges of one prompt on their way to loadings."""

    def __init__(self, model: Model, linear: Linearized, edges: list[Edge], targets: Any) -> None:
        self.model, self.linear, self.edges = model, linear, edges
        self.nodes = source_table(linear)
        self.counts = {
            number: stage.attention.heads for number, stage in enumerate(linear.stream.stages) if stage.attention
        }
        self.outputs = self._outputs(targets)
        self.readings = {target: self._reading(target) for target in dict.fromkeys(edge.target for edge in edges)}
        self.numbers = {edge.source: self.nodes.find(edge.source) for edge in edges}

    def _outputs(self, targets: Any) -> AttributionTargets | None:
        """The directions of the outputs that edges end at."""
        ids = list(dict.fromkeys(edge.target.index for edge in self.edges if edge.target.name == "output"))
        if not ids:
            return None
        given = torch.tensor(ids) if targets is None else targets
        virtual = [number for number in ids if isinstance(number, int) and number >= self.model.vocab_size]
        if targets is None and virtual:
            raise ValueError(f"output:{virtual[0]} is past the vocabulary; say what it stands for with targets=")
        return AttributionTargets(given, model=self.model, logits=self.linear.run.logits[0, 0])

    def _reading(self, target: Node) -> Reading:
        stream = self.linear.stream
        assert target.position is not None
        position = torch.tensor([target.position], device=stream.final.inverse.device)
        if target.name == "output":
            assert self.outputs is not None
            found = self.outputs.vocab_indices.eq(torch.tensor(target.index)).nonzero()
            if not len(found):
                raise ValueError(f"{target} is not among targets={self.outputs!r}")
            vectors = self.outputs.logit_vectors[found[0]].to(stream.final.inverse)
            return Reading(len(stream.stages), target.position, stream.final.pull(vectors, position)[0])
        number = self.nodes.find(target)
        group, its = group_of(stream, number)
        if group not in self.linear.readers:
            raise ValueError(f"{target} has no row; edges end at features, neurons and outputs")
        reader = self.linear.readers[group]
        node = torch.tensor([number - its.offset], device=position.device)
        return Reading(reader.stage, target.position, reader.pulled(node, position).covector[0])

    def split(self, by: str, progress: Progress) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loadings [head, edge]; direct parts, weights and the size of the target's whole row, by edge."""
        stream = self.linear.stream
        rows = {target: row_of(stream, reading) for target, reading in self.readings.items()}
        weights = torch.stack([rows[edge.target][self.numbers[edge.source]] for edge in self.edges])
        sizes = torch.stack([rows[edge.target].abs().double().sum() for edge in self.edges])
        writes = {source: writes_of(stream, number) for source, number in self.numbers.items()}
        parts: dict[int, Parts] = {}
        together = self._together("target" if by == "source" else "source")
        for done, columns in enumerate(together, 1):
            here = [self.edges[column] for column in columns]
            if by == "source":
                found = split_by_source(stream, self.readings[here[0].target], [writes[e.source] for e in here])
            else:
                found = split_by_target(stream, writes[here[0].source], [self.readings[e.target] for e in here])
            parts |= dict(zip(columns, found, strict=True))
            progress("loadings", done, len(together))
        ordered = [parts[column] for column in range(len(self.edges))]
        values = torch.stack([self._column(found) for found, _ in ordered], 1)
        return values, torch.stack([direct for _, direct in ordered]), weights, sizes

    def _together(self, end: str) -> list[list[int]]:
        """Edges that share an end, by number."""
        groups: dict[Node, list[int]] = {}
        for column, edge in enumerate(self.edges):
            groups.setdefault(getattr(edge, end), []).append(column)
        return list(groups.values())

    def _column(self, found: dict[int, Tensor]) -> Float[Tensor, " head"]:
        """Loadings of all heads, in the order of `heads`; none where an edge does not pass."""
        zero = self.linear.stream.final.inverse
        return torch.cat([found.get(stage, zero.new_zeros(count)) for stage, count in self.counts.items()])

    def heads(self) -> tuple[Node, ...]:
        """Every head, by layer."""
        layers = sorted(writer.layer for writer in self.model.layout.attention)
        counts = zip(layers, self.counts.values(), strict=True)
        return tuple(Node("attn.head", layer, head) for layer, count in counts for head in range(count))
