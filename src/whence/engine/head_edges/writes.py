"""What the differences of heads, MLPs and token embeddings are in the stream, a block of tokens at a time.

    head    W_O[:, h] dz_h, behind a post-norm its derivative at the value it had
    MLP     the difference of its output
    neuron  never written out: a covector comes back to the neurons, W_outᵀ c, and meets their differences there

Cost: one product with the last map of every attention a token. Knows nothing of what reads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.pulling import pushed
from whence.engine.circuits.state import State
from whence.model.linear import matrix_of, pull_linear


class Block(NamedTuple):
    """Some tokens: a range of examples, and a range of positions."""

    examples: slice
    positions: slice

    def of(self, field: Float[Tensor, "example pos d"]) -> Float[Tensor, "n s d"]:
        """The part of a field."""
        return field[self.examples, self.positions]


@dataclass(frozen=True, eq=False)
class Writes:
    """The differences of one site's units, at a state."""

    site: CircuitSite
    state: State
    delta: Float[Tensor, "example pos width"]

    def spread(self, block: Block) -> Float[Tensor, "n unit s d_model"]:
        """What each unit's difference is in the stream."""
        site, delta, sublayer = self.site, block.of(self.delta), self.site.sublayer
        if sublayer is None:
            return delta[:, None]
        if site.depth == "normed":
            return sublayer.factor * delta[:, None]
        assert sublayer.write is not None
        blocks = site.units.count
        matrix = matrix_of(sublayer.write, block.of(self.state.final).shape[-1], site.units.width, delta)
        heads = torch.einsum("nshk,dhk->nhsd", delta.unflatten(-1, (blocks, -1)), matrix.unflatten(1, (blocks, -1)))
        if sublayer.post_norm is None:
            return sublayer.factor * sublayer.written * heads
        out = sublayer.written * sublayer.write(block.of(self.state.own[site]))
        return pushed(
            lambda value: sublayer.tail(value, "out"), out[:, None].expand(heads.shape), sublayer.written * heads
        )

    def met(self, covector: Float[Tensor, "n target s d_model"], block: Block) -> Float[Tensor, "n target unit"]:
        """Covectors times what each of many units' difference is in the stream."""
        sublayer, delta = self.site.sublayer, block.of(self.delta)
        assert sublayer is not None
        assert sublayer.write is not None
        back = pull_linear(sublayer.write, self._behind(covector, block), self.site.units.width)
        return torch.einsum("ntsu,nsu->ntu", back, delta.to(back))

    @torch.enable_grad()
    def _behind(self, covector: Tensor, block: Block) -> Tensor:
        """Covectors in the stream, at what the last map puts out."""
        sublayer = self.site.sublayer
        assert sublayer is not None
        if sublayer.post_norm is None:
            return sublayer.factor * sublayer.written * covector
        assert sublayer.write is not None
        out = sublayer.written * sublayer.write(block.of(self.state.own[self.site]).detach())
        rows = out[:, None].expand(covector.shape).detach().requires_grad_()
        moved = sublayer.tail(rows, "out")
        return sublayer.written * torch.autograd.grad(moved, rows, covector.to(moved))[0].to(covector)

    def step(self) -> Float[Tensor, "example pos d_model"]:
        """What the site's whole difference is in the stream."""
        site, sublayer = self.site, self.site.sublayer
        if sublayer is None or site.depth == "normed":
            return self.delta if sublayer is None else sublayer.factor * self.delta
        return pushed(lambda value: sublayer.tail(value, site.depth), self.state.own[site], self.delta)
