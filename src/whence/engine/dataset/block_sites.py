"""Units of the model's own as sites: heads, neurons, whole sublayers.

    heads      write z_h W_O,h; as targets only what a stated covector makes of their queries, keys or values
    neurons    write a_j W_down,j; as targets their pre-activations (gate and up, where there are both)
    whole      what a sublayer adds to the stream, as one vector

Cost: that of the vectors. Heads of fused query-key-value matrices are sources only.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.dataset.sites import Reading, StreamWrite, Writing
from whence.engine.dataset.tape import Tape
from whence.model.linear import constant_of
from whence.model.sites import Hook, Spot
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class Read:
    """Targets among what one of a sublayer's first maps puts out.

    Args:
        reading: the targets.
        module: the map.
        covectors: what they make of its outputs; None: each output is one.
    """

    reading: Reading
    module: nn.Module
    covectors: Float[Tensor, "target output"] | None


@dataclass(frozen=True, eq=False)
class InsideSite:
    """Channels of what a sublayer's last map is given: neurons one by one, or heads together."""

    sublayer: Sublayer
    writes: StreamWrite
    reads: tuple[Read, ...]
    weight: Float[Tensor, "d_model channel"]
    heads: int | None  # None: neurons

    @property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(read.reading for read in self.reads)

    @property
    def closes(self) -> Sublayer:
        return self.sublayer

    @property
    def site(self) -> str:
        return f"{self.sublayer.layer}.{'mlp.neuron' if self.heads is None else 'attn.head'}"

    @cached_property
    def bias(self) -> Float[Tensor, " d_model"] | None:
        assert self.sublayer.write is not None
        return constant_of(self.sublayer.write, self.weight.shape[1], self.weight)

    @property
    def writings(self) -> tuple[Writing, ...]:
        count, device = self.heads or self.weight.shape[1], self.weight.device
        ids = torch.arange(count, device=device)
        kind, U = ("units", self.weight.T) if self.heads is None else ("parts", None)
        found = [Writing(self.site, ids, count, self.writes, kind, U)]
        if self.bias is not None:
            found.append(Writing(f"{self.sublayer.key}.bias", ids[:1], 1, self.writes, "units", self.bias[None]))
        return tuple(found)

    def hooks(self, tape: Tape) -> list[Hook]:
        write, seen = self.sublayer.write, dict[str, Tensor]()
        assert write is not None

        return [
            Spot(write, before=True).hook(lambda given: seen.update(given=given)),
            Spot(write, before=False).hook(lambda output: self._passed(tape, tape.of(seen["given"]), output)),
            *self._values(tape),
        ]

    def _passed(self, tape: Tape, given: Tensor, output: Tensor) -> Tensor | None:
        if self.heads is None:
            written = tape.leaf(self.site, given) @ self.weight.T
        else:
            parts = given.detach().unflatten(-1, (self.heads, -1))
            maps = self.weight.unflatten(-1, (self.heads, -1))
            written = tape.leaf(self.site, torch.einsum("...he,dhe->...hd", parts, maps)).sum(-2)
        if self.bias is not None:
            written = written + tape.leaf(f"{self.sublayer.key}.bias", torch.ones_like(given[..., :1])) * self.bias
        return tape.joined(output, written) if tape.cutting else None

    def _values(self, tape: Tape) -> list[Hook]:
        def keep(read: Read) -> Hook:
            def after(output: Tensor) -> None:
                out = tape.of(output)
                tape.values[read.reading.site] = out if read.covectors is None else out @ read.covectors.T

            return Spot(read.module, before=False).hook(after)

        return [keep(read) for read in self.reads]


@dataclass(frozen=True, eq=False)
class WholeSite:
    """What a sublayer adds to the stream, as one vector."""

    sublayer: Sublayer
    writes: StreamWrite
    device: torch.device
    readings: tuple[Reading, ...] = ()

    @property
    def closes(self) -> Sublayer:
        return self.sublayer

    @property
    def writings(self) -> tuple[Writing, ...]:
        one = torch.zeros(1, dtype=torch.long, device=self.device)
        return (Writing(self.sublayer.key, one, 1, self.writes, "vector"),)

    def hooks(self, tape: Tape) -> list[Hook]:
        def after(output: Tensor) -> Tensor | None:
            written = tape.leaf(self.sublayer.key, tape.of(output).clone())
            return tape.joined(output, written) if tape.cutting else None

        return [self.sublayer.spot("normed").hook(after)]
