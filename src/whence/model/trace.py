"""What one forward pass left behind: plain data, at the positions looked at.

A `Write` is one writer's part: the input of its last linear map, that map's output, and what is needed to follow the
write into the stream (post-norm, routing, the pattern and values of attention). Shapes: "asked" counts the positions
looked at, the same number for each example. recorder.py fills these in.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.model.attention import Attention
from whence.model.batch import Batch
from whence.model.layout import Writer


@dataclass(frozen=True, eq=False)
class Around:
    """A module's input and output at the rows asked for."""

    input: Float[Tensor, "example asked width"]
    output: Float[Tensor, "example asked out"]


@dataclass(frozen=True, eq=False)
class Routed:
    """What reached a container of experts, one line per (example, asked)."""

    input: Float[Tensor, "line d_model"]
    index: Int[Tensor, "line chosen"]
    weight: Float[Tensor, "line chosen"]


@dataclass(frozen=True, eq=False)
class Write:
    """One writer's part in one forward pass, at the rows asked for."""

    writer: Writer
    input: Float[Tensor, "example asked channel"] | Routed
    output: Float[Tensor, "example asked d_model"]
    post_norm: Around | None = None
    shared_gate: Float[Tensor, "example asked one"] | None = None
    attention: Attention | None = None  # pattern rows of the asked queries, values of every key
    sublayer: Around | None = None

    def added(self, dtype: torch.dtype) -> Float[Tensor, "example asked d_model"]:
        """What the write adds to the stream."""
        added = (self.output if self.post_norm is None else self.post_norm.output).to(dtype) * self.writer.multiplier
        return added if self.shared_gate is None else added * self.shared_gate.to(dtype)


@dataclass(frozen=True)
class Wanted:
    """What a forward pass should leave behind besides logits, embeddings and the final stream."""

    writes: bool = True  # every writer's input and output
    attention: bool = False  # patterns and values: with every attention write, or by layer where writes are not kept
    sublayers: bool = False  # input and output of whole sublayers, with every write
    streams: frozenset[int] = field(default_factory=frozenset[int])  # the stream after these layers
    scales: bool = False  # 1 / sigma of every norm that a sublayer reads through, and of every post-norm
    around: frozenset[nn.Module] = field(default_factory=frozenset[nn.Module])  # input and output of these modules


@dataclass(frozen=True, eq=False)
class Trace:
    """One forward pass."""

    batch: Batch
    rows: Int[Tensor, "example asked"]
    embedding: Float[Tensor, "example asked d_model"]  # the stream before the first block, without learned positions
    position: Float[Tensor, "example asked d_model"] | None
    final: Around  # the final norm
    logits: Float[Tensor, "example kept vocab"]
    raw: Float[Tensor, "example kept vocab"]  # the output embedding's own: before scale and softcap
    writes: tuple[Write, ...] = ()
    attention: dict[int, Attention] = field(default_factory=dict[int, Attention])  # by layer; pattern rows of the asked
    streams: dict[int, Float[Tensor, "example asked d_model"]] = field(default_factory=dict[int, Tensor])
    scales: dict[nn.Module, Float[Tensor, "example asked"]] = field(default_factory=dict[nn.Module, Tensor])
    around: dict[nn.Module, Around] = field(default_factory=dict[nn.Module, Around])
