"""A decomposed matrix as a site: components read its input and write its output; delta and bias write the rest.

    y = a = x V        out = a U + delta + bias,    delta = out − bias − a U

Components that are not alive belong to `delta`; a matrix without any that is has no units, only those two. Cost: two
products with V and U a pass.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.parameters import Part
from whence.engine.dataset.sites import Elsewhere, Inside, Reading, StreamRead, StreamWrite, Writing
from whence.engine.dataset.tape import Tape
from whence.model.linear import constant_of
from whence.model.matrices import LinearMap
from whence.model.sites import Hook, Spot
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class MatrixSite:
    """Rank-one components of one matrix."""

    part: Part
    map: LinearMap
    reads: StreamRead | Inside | Elsewhere
    writes: StreamWrite | Inside | None  # None: of the unembedding, whose components are targets only
    closes: Sublayer | None
    like: Tensor  # dtype and device of what is computed

    @cached_property
    def ids(self) -> Int[Tensor, " alive"]:
        return self.part.ids.to(self.like.device)

    @cached_property
    def V(self) -> Float[Tensor, "alive into"]:
        return self.part.V.to(self.like).T[self.ids]

    @cached_property
    def U(self) -> Float[Tensor, "alive out"]:
        return self.part.U.to(self.like)[self.ids]

    @cached_property
    def bias(self) -> Float[Tensor, " out"] | None:
        return None if self.embeds else constant_of(self.map.module, self.V.shape[1], self.like)

    @property
    def embeds(self) -> bool:
        return self.map.name == "embed.matrix"

    @property
    def readings(self) -> tuple[Reading, ...]:
        if self.embeds or not len(self.ids):
            return ()
        return (Reading(self.part.site, self.ids, self.part.count, self.reads, self.V),)

    @property
    def writings(self) -> tuple[Writing, ...]:
        if self.writes is None:
            return ()
        site, one = self.part.site, torch.zeros(1, dtype=torch.long, device=self.like.device)
        found = [Writing(f"{site}.delta", one, 1, self.writes, "vector")]
        if len(self.ids):
            found.insert(0, Writing(site, self.ids, self.part.count, self.writes, "units", self.U))
        if self.bias is not None:
            found.append(Writing(f"{site}.bias", one, 1, self.writes, "units", self.bias[None]))
        return tuple(found)

    def hooks(self, tape: Tape) -> list[Hook]:
        seen, module = dict[str, Tensor](), self.map.module
        return [
            Spot(module, before=True).hook(lambda given: seen.update(given=given)),
            Spot(module, before=False).hook(lambda output: self._passed(tape, seen["given"], output)),
        ]

    def _passed(self, tape: Tape, given: Tensor, output: Tensor) -> Tensor | None:
        site = self.part.site
        tape.outputs[site] = tape.of(output).detach()
        if self.embeds:
            tape.inputs[site] = given
            activation = self.V.T[given]
        else:
            x = tape.of(given)
            tape.inputs[site] = x.detach()
            activation = x @ self.V.T
            tape.values[site] = activation
        if self.writes is None:
            return None
        written = tape.leaf(site, activation) @ self.U
        rest = tape.of(output).detach() - written.detach()
        if self.bias is not None:
            ones = tape.leaf(f"{site}.bias", torch.ones_like(rest[..., :1]))
            written = written + ones * self.bias
            rest = rest - self.bias
        if tape.complete:
            written = written + tape.leaf(f"{site}.delta", rest)
        if not tape.complete:
            tape.outputs[site] = written.detach()
        return tape.joined(output, written)
