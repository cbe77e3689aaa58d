"""From a linearized prompt to a graph: choose nodes, solve their rows within a budget, certify each, number the nodes.

Memory: the linear model, one chunk's sweep, and rows, which go to disk once the budget is spent (engine.budget). Rows
of nodes that end without one of their own are summed into `rest` as soon as the list of nodes is known: at once for a
fixed list, at the end for an order by influence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from whence.engine.assembly import Numbering, node_table, number
from whence.engine.budget import Budget, budget_of
from whence.engine.expansion import Chunk, Solved, chunks, node_numbers, solve, solve_logits
from whence.engine.expansion_order import by_influence, readable, strongest
from whence.engine.linearize import Linearized
from whence.engine.logit_rows import Explained
from whence.engine.memory import RowStore
from whence.engine.stream import Group
from whence.engine.tolerance import refuse_gap
from whence.engine.workspace import Workspace
from whence.progress import Progress, silent
from whence.results.graph import Certificate, Graph
from whence.results.weights import Block, Weights


@dataclass(frozen=True, eq=False)
class GraphRequest:
    """What is asked of a graph."""

    tolerance: float
    max_nodes: int | None = None
    order: Literal["influence", "exact"] = "influence"
    given: Int[Tensor, " node"] | None = None
    shard: tuple[int, int] | None = None
    memory: int | None = None  # bytes
    parity: bool = False


@dataclass(frozen=True, eq=False)
class Checked:
    """What a chunk's rows explain and how far their sums are from it."""

    chunk: Chunk
    value: Float64[Tensor, " target"]
    gap: Float64[Tensor, " target"]
    size: Float64[Tensor, " target"]


@dataclass(eq=False)
class GraphRun:
    """One graph on its way."""

    linear: Linearized
    logits: Explained
    request: GraphRequest
    progress: Progress = silent
    budget: Budget = field(init=False)
    store: RowStore = field(init=False)
    space: Workspace = field(default_factory=Workspace)
    certified: list[Checked] = field(default_factory=list[Checked])

    def __post_init__(self) -> None:
        self.budget = budget_of(self.linear, self.request.memory)
        self.store = RowStore(self.budget.rows)

    def graph(self, **about: Any) -> Graph:
        """The graph.

        Args:
            about: the fields of `Graph` that this run knows nothing of.

        Raises:
            ValueError: a memory budget that cannot be kept.
            LedgerError: a row that does not add up.
        """
        targets = self.logits
        top = solve_logits(self.linear, targets.vectors, targets.constant, targets.value, targets.scale)
        selected = self._fixed()
        if selected is not None:
            numbering = number(self.linear, selected, parity=self.request.parity)
            blocks = [self._block(numbering, one) for one in self._rows_of_shard(selected, top)]
        else:
            assert self.request.max_nodes is not None
            solved = by_influence(
                self.linear, top, self._weights, self.request.max_nodes, self._solve, constants=not self.request.parity
            )
            numbers = [node_numbers(self.linear, one.chunk) for one in solved]
            selected = torch.cat(numbers).sort().values if numbers else torch.zeros(0, dtype=torch.long)
            numbering = number(self.linear, selected, parity=self.request.parity)
            self._certify(top)
            blocks = [self._block(numbering, one) for one in (*solved, top)]
        return self._assembled(numbering, blocks, about)

    # ------------------------------------------------------------ which rows
    @property
    def _weights(self) -> Tensor:
        return self.logits.targets.logit_probabilities.to(self.logits.vectors)

    def _fixed(self) -> Int[Tensor, " node"] | None:
        """The list of nodes, where it does not depend on rows."""
        every, request = readable(self.linear), self.request
        if request.given is not None:
            return request.given
        if request.max_nodes is None or request.max_nodes >= len(every):
            return every
        if request.order == "exact":
            return strongest(self.linear, self.logits.vectors, self._weights, request.max_nodes)
        return None

    def _rows_of_shard(self, selected: Int[Tensor, " node"], top: Solved) -> Iterable[Solved]:
        part, parts = self.request.shard or (0, 1)
        mine = list(chunks(self.linear, selected, self.budget.chunk))[part::parts]
        total = sum(len(chunk.position) for chunk in mine)
        done = 0
        for chunk in mine:
            yield self._certify(solve(self.linear, chunk, self.space))
            done += len(chunk.position)
            self.progress("rows", done, total)
        if part == 0:
            yield self._certify(top)

    def _solve(self, nodes: Int[Tensor, " node"]) -> Sequence[Solved]:
        """Rows of some nodes, all their columns kept until the list of nodes is complete."""
        solved = [
            self._certify(solve(self.linear, chunk, self.space))
            for chunk in chunks(self.linear, nodes, self.budget.chunk)
        ]
        done = sum(len(one.chunk.position) for one in self.certified)
        self.progress("rows", done, self.request.max_nodes or done)
        return [one.with_values(self.store.kept(one.values.cpu())) for one in solved]

    def _certify(self, solved: Solved) -> Solved:
        gap, size = solved.gap(), solved.magnitude()
        if len(gap):
            refuse_gap(gap, size, self.request.tolerance)
        self.certified.append(Checked(solved.chunk, solved.value.cpu().double(), gap.cpu(), size.cpu()))
        return solved

    # ------------------------------------------------------------ the result
    def _group(self, chunk: Chunk) -> Group | None:
        return None if chunk.group is None else self.linear.stream.groups[chunk.group]

    def _block(self, numbering: Numbering, solved: Solved) -> Block:
        block = numbering.block(solved, self._group(solved.chunk))
        return Block(block.rows, block.columns, self.store.kept(block.values))

    def _assembled(self, numbering: Numbering, blocks: list[Block], about: dict[str, Any]) -> Graph:
        targets, linear = self.logits.targets, self.linear
        nodes = node_table(linear, numbering, targets.logit_targets)
        features, activations = linear.features()
        return Graph(
            nodes=nodes,
            weights=Weights((len(nodes), len(nodes)), blocks),
            logit_targets=tuple(targets.logit_targets),
            logit_probabilities=targets.logit_probabilities.float().cpu(),
            vocab_size=targets.vocab_size,
            active_features=features,
            activation_values=activations,
            selected_features=torch.searchsorted(readable(linear), numbering.selected),
            certificate=self._certificate(numbering),
            **about,
        )

    def _certificate(self, numbering: Numbering) -> Certificate:
        if not self.certified:  # a shard without rows
            return Certificate(bound=self.request.tolerance)
        rows = [numbering.rows(one.chunk, self._group(one.chunk)) for one in self.certified]
        value, gap, size = (
            torch.cat(column)
            for column in zip(*((one.value, one.gap, one.size) for one in self.certified), strict=True)
        )
        order = torch.cat(rows).argsort()
        return Certificate(torch.cat(rows)[order], value[order], gap[order], size[order], self.request.tolerance)
