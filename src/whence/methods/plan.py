"""What a graph will take, before it is solved: rows, edges, time, memory.

One forward pass and the encoders tell which features are active; the rest is counting. For a target at position p that
reads above a attention sublayers, of which the lowest costs nothing where tokens are read through it:

    multiply-adds = first hop + (a - 2) (2 (p + 1) d c + (p + 1)^2 c) + d (sources it sees)

d: width of the stream, c: channels of the heads. Time is that over the speed at which a sample of the rows was solved
on the spot. Nodes chosen by an order are counted as if they were spread like all features are. Knows nothing of how
busy the machine will be.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from whence.components.neurons import Neurons
from whence.engine.expansion import CHUNK_BYTES, cell_bytes, chunks, solve
from whence.engine.expansion_order import readable
from whence.engine.linearize import Linearized, linearize
from whence.engine.memory import bytes_of, said
from whence.engine.prompts import NEURONS, bos_positions, one_prompt, units_of
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
        seconds: these at the speed of a sample.
        bytes_static: the linear model of the prompt.
        bytes_sweep: one chunk of targets on its way.
        bytes_rows: the rows themselves, which go to disk where a budget has no room for them.
        memory: the budget, if any.
    """

    rows: int
    active: int
    sources: int
    flops: float
    seconds: float
    bytes_static: int
    bytes_sweep: int
    bytes_rows: int
    memory: int | None = None

    @property
    def fits(self) -> bool:
        """Whether everything stays in the budget without a file."""
        return self.memory is None or self.bytes_static + self.bytes_sweep + self.bytes_rows <= self.memory

    def __str__(self) -> str:
        """Four lines."""
        budget = "" if self.memory is None else f" of {said(self.memory)}: {'fits' if self.fits else 'rows go to disk'}"
        parts = f"linear model {said(self.bytes_static)}, sweep {said(self.bytes_sweep)}, rows {said(self.bytes_rows)}"
        total = self.bytes_static + self.bytes_sweep + self.bytes_rows
        return "\n".join(
            (
                f"rows      {self.rows:,} of {self.active:,} active features, {self.sources:,} sources",
                f"work      {self.flops / 1e9:,.1f} GFLOP, about {self.seconds:,.1f} s on this machine",
                f"memory    {said(total)}{budget}",
                f"          {parts}",
            )
        )


def plan_graph(
    model: Model,
    dictionary: Any,
    prompt: Any,
    *,
    max_nodes: int | None = None,
    position: int = -1,
    memory: str | int | None = None,
) -> GraphPlan:
    """What `attribution_graph` with these arguments would take.

    Args:
        model: the model.
        dictionary: as for `attribution_graph`.
        prompt: as for `attribution_graph`.
        max_nodes: how many features get rows; None for all (2,048 where the units are neurons).
        position: where the logits are.
        memory: the budget to compare with, e.g. "8GB".

    Raises:
        ValueError, TypeError, UnsupportedModelError: as `attribution_graph` does.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> whence.plan_graph(model, whence.load_dictionary(dictionary_path("transcoders")), PROMPT).rows
        256
    """
    batch, last = one_prompt(model, prompt, position)
    units = units_of(dictionary)
    linear = linearize(model, batch, units, position=last, bos=bos_positions(model, batch, None))
    linear.forget_run()
    active = len(readable(linear))
    if max_nodes is None and isinstance(units, Neurons):
        max_nodes = NEURONS
    rows = active if max_nodes is None else min(max_nodes, active)
    share = rows / max(active, 1)
    flops, edges = _work(linear)
    cell = cell_bytes(linear)
    return GraphPlan(
        rows=rows,
        active=active,
        sources=linear.stream.nodes,
        flops=flops * share,
        seconds=flops * share * _seconds_per_operation(linear),
        bytes_static=linear.bytes(),
        bytes_sweep=min(CHUNK_BYTES, cell * linear.stream.length * max(rows, 1)),
        bytes_rows=int(edges * share) * linear.stream.final.inverse.element_size(),
        memory=bytes_of(memory),
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
    below = {source.group for one in stream.stages[:stage] for source in one.sources}
    below |= {source.group for source in stream.bottom}
    crossed = [one.attention for one in stream.stages[:stage] if one.attention is not None]
    hops = crossed[(1 if stream.pairs is not None else 0) : -1]
    sweep = sum(_hop(a.output.shape[1], a.value.shape[0] * a.value.shape[1], stream.width, p) for a in hops)
    return sum(stream.groups[group].starts[p + 1] for group in below), sweep


def _hop(channels: int, values: int, width: int, p: int) -> int:
    """Multiply-adds of carrying one covector through one attention."""
    return (p + 1) * width * (channels + values) + (p + 1) * (p + 2) // 2 * channels


def _seconds_per_operation(linear: Linearized) -> float:
    """Measured on rows of features spread over all of them."""
    number = max(linear.readers, key=lambda one: linear.readers[one].stage, default=None)  # its rows cross most
    if number is None:
        return 0.0
    group = linear.stream.groups[number]
    count = min(SAMPLE, len(group))
    if not count:
        return 0.0
    middle = max(0, len(group) * 3 // 4 - count)
    sample = torch.arange(middle, middle + count) + group.offset
    flops, start = 0.0, time.perf_counter()
    for chunk in chunks(linear, sample):
        float(solve(linear, chunk).values.sum())  # reading a number waits for an accelerator
        for p in chunk.position:
            seen, sweep = _of_row(linear, number, p)
            flops += 2.0 * (sweep + linear.stream.width * seen)
    return (time.perf_counter() - start) / max(flops, 1.0)
