"""What a graph will take, before it is solved: rows, edges, time, memory.

One forward pass and the encoders tell which features are active; the rest is counting. For a target at position p that
reads above a attention sublayers, of which the lowest costs nothing where tokens are read through it:

    multiply-adds = first hop + (a - 2) (2 (p + 1) d c + (p + 1)^2 c) + d (sources it sees)

d: width of the stream, c: channels of the heads. Time is that over the speed at which a sample of the rows was solved
on the spot; where nodes are chosen by influence, every round reads all rows so far, at the speed measured likewise.
Chosen nodes are counted as if they were spread like all features. Knows nothing of how busy the machine will be.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.engine.budget import budget_of, refuse_hopeless
from whence.engine.expansion import cell_bytes, chunks, solve
from whence.engine.expansion_order import ROUNDS, readable
from whence.engine.linearize import Linearized, linearize
from whence.engine.memory import bytes_of, said
from whence.engine.prompts import NEURONS, bos_positions, check_choice, one_prompt, units_of
from whence.model.model import Model

SAMPLE = 96  # rows solved to measure the speed


@dataclass(frozen=True)
class GraphPlan:
    """What a graph will take.

    Args:
        rows: features with rows of their own.
        active: features that are active.
        sources: columns of the graph.
        flops: floating-point operations of the sweeps.
        seconds: what these and the choice of nodes take at the speed of a sample.
        bytes_static: the linear model of the prompt, and the run while it is made.
        bytes_sweep: one chunk of targets on its way.
        bytes_rows: the rows themselves.
        room: bytes of rows that a budget keeps in memory, the others going to disk; None without a budget.
    """

    rows: int
    active: int
    sources: int
    flops: float
    seconds: float
    bytes_static: int
    bytes_sweep: int
    bytes_rows: int
    room: int | None = None

    @property
    def fits(self) -> bool:
        """Whether everything stays in memory."""
        return self.room is None or self.bytes_rows <= self.room

    def __str__(self) -> str:
        """Four lines."""
        parts = f"linear model {said(self.bytes_static)}, sweep {said(self.bytes_sweep)}, rows {said(self.bytes_rows)}"
        total = self.bytes_static + self.bytes_sweep + (self.bytes_rows if self.fits else self.room or 0)
        disk = "" if self.fits else f", and {said(self.bytes_rows - (self.room or 0))} of rows on disk"
        return "\n".join(
            (
                f"rows      {self.rows:,} of {self.active:,} active features, {self.sources:,} sources",
                f"work      {self.flops / 1e9:,.1f} GFLOP, about {self.seconds:,.1f} s on this machine",
                f"memory    {said(total)}{disk}",
                f"          {parts}",
            )
        )


def plan_graph(
    model: Model,
    dictionary: Any,
    prompt: Any,
    *,
    max_nodes: int | None = None,
    order: str = "influence",
    position: int = -1,
    memory: str | int | None = None,
) -> GraphPlan:
    """What `attribution_graph` with these arguments would take.

    Args:
        model: the model.
        dictionary: as for `attribution_graph`.
        prompt: as for `attribution_graph`.
        max_nodes: how many features get rows; None for all (2,048 where the units are neurons).
        order: how they are chosen, "influence" or "exact".
        position: where the logits are.
        memory: the budget, e.g. "8GB".

    Raises:
        ValueError, TypeError, UnsupportedModelError: as `attribution_graph` does; a budget that is too little for it.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> whence.plan_graph(model, whence.load_dictionary(dictionary_path("transcoders")), PROMPT).rows
        256
    """
    batch, last = one_prompt(model, prompt, position)
    units, allowed = units_of(model, dictionary), bytes_of(memory)
    if max_nodes is None and isinstance(units, Neurons):
        max_nodes = NEURONS
    check_choice(order, max_nodes)
    refuse_hopeless(model, last + 1, allowed)
    linear = linearize(model, batch, units, position=last, bos=bos_positions(model, batch, None))
    linear.forget_run()
    budget = budget_of(linear, allowed)
    active = len(readable(linear))
    rows = active if max_nodes is None else min(max_nodes, active)
    share = rows / max(active, 1)
    flops, edges = (share * count for count in _work(linear))
    per_operation, per_edge = _speeds(linear)
    # By influence, all columns are kept and read again every round, until the list of nodes is complete.
    by_influence = order == "influence" and rows < active
    return GraphPlan(
        rows=rows,
        active=active,
        sources=linear.stream.nodes,
        flops=flops,
        seconds=flops * per_operation + by_influence * edges * ROUNDS / 2 * per_edge,
        bytes_static=linear.bytes(),
        bytes_sweep=min(budget.chunk, cell_bytes(linear) * linear.stream.length * max(rows, 1)),
        bytes_rows=int(edges * (1 if by_influence else share)) * linear.stream.final.inverse.element_size(),
        room=budget.rows,
    )


def _work(linear: Linearized) -> tuple[float, int]:
    """Operations and edges of all rows."""
    flops, edges = 0.0, 0
    for number in linear.readers:
        counts = torch.tensor(linear.stream.groups[number].starts).diff().tolist()
        for p, count in enumerate(counts):
            seen, sweep = _of_row(linear, number, p) if count else (0, 0)
            flops += 2.0 * count * (sweep + linear.stream.width * seen)
            edges += count * seen
    return flops, edges


def _of_row(linear: Linearized, number: int, p: int) -> tuple[int, int]:
    """Sources that a target of this group sees from position p, and multiply-adds of its sweep."""
    stream, stage = linear.stream, linear.readers[number].stage
    crossed = [one.attention for one in stream.stages[:stage] if one.attention is not None]
    hops = crossed[(1 if stream.pairs is not None else 0) : -1]
    sweep = sum(_hop(a.output.shape[1], a.value.shape[0] * a.value.shape[1], stream.width, p) for a in hops)
    return sum(stream.groups[group].starts[p + 1] for group in stream.visible(stage)), sweep


def _hop(channels: int, values: int, width: int, p: int) -> int:
    """Multiply-adds of carrying one covector through one attention."""
    return (p + 1) * width * (channels + values) + (p + 1) * (p + 2) // 2 * channels


def _speeds(linear: Linearized) -> tuple[float, float]:
    """Seconds an operation and an edge read, measured on rows of the highest reader: these cross most."""
    number = max(linear.readers, key=lambda one: linear.readers[one].stage, default=None)
    if number is None or not len(linear.stream.groups[number]):
        return 0.0, 0.0
    group = linear.stream.groups[number]
    count = min(SAMPLE, len(group))
    middle = max(0, len(group) * 3 // 4 - count)
    sample = torch.arange(middle, middle + count) + group.offset
    _solved(linear, number, sample)  # the first time, memory is paged in
    return _solved(linear, number, sample)


def _solved(linear: Linearized, number: int, sample: Int[Tensor, " node"]) -> tuple[float, float]:
    flops, edges, solving, reading = 0.0, 0, 0.0, 0.0
    for chunk in chunks(linear, sample):
        start = time.perf_counter()
        values = solve(linear, chunk).values
        float(values[0, 0] if values.numel() else 0.0)  # reading a number waits for an accelerator
        middle = time.perf_counter()
        float(values.cpu().abs().sum())
        solving, reading = solving + middle - start, reading + time.perf_counter() - middle
        edges += values.numel()
        for p in chunk.position:
            seen, sweep = _of_row(linear, number, p)
            flops += 2.0 * (sweep + linear.stream.width * seen)
    return solving / max(flops, 1.0), reading / max(edges, 1)
