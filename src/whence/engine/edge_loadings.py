"""Named edges of one prompt as covectors and writes, and back from loadings by stage to rows of heads.

Edges that share the end the split starts from are solved together. Cost: engine.head_loadings's.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.head_loadings import Parts, Reading, row_of, split_by_source, split_by_target
from whence.engine.linearize import Linearized
from whence.engine.source_nodes import group_of, source_table, writes_of
from whence.model.model import Model
from whence.progress import Progress
from whence.results.keys import Edge, Node
from whence.targets.attribution import AttributionTargets


class EdgeLoadings:
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
