"""The features of a dictionary as a site.

    y_t = W_enc,t · r + b_enc,t        write = f W_dec + b_dec + error,    f = activation(y)

r is what the dictionary reads; what it misses of what it writes to is `error`, a skip's output included. Written into
the stream, a sublayer's output, or (attn_z) through the attention's output map. Cost: two products with the dictionary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.encoder import Encoder
from whence.engine.dataset.sites import Elsewhere, Inside, Reading, StreamRead, StreamWrite, Writing
from whence.engine.dataset.tape import Tape
from whence.model.sites import Hook, Site
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class FeatureSite:
    """Features of one layer's dictionary."""

    place: str  # "2.mlp", "1.resid_post"
    encoder: Encoder
    U: Float[Tensor, "feature out"]
    bias: Float[Tensor, " out"]
    read: Site
    write: Site
    reads: StreamRead | Inside | Elsewhere
    writes: StreamWrite
    closes: Sublayer | None

    @property
    def site(self) -> str:
        return f"{self.place}.feature"

    @property
    def readings(self) -> tuple[Reading, ...]:
        ids = torch.arange(len(self.U), device=self.U.device)
        V, constant = self.encoder.rows(ids)
        return (Reading(self.site, ids, len(ids), self.reads, V.to(self.U), constant.to(self.U)),)

    @property
    def writings(self) -> tuple[Writing, ...]:
        ids = torch.arange(len(self.U), device=self.U.device)
        return (
            Writing(self.site, ids, len(ids), self.writes, "units", self.U),
            Writing(f"{self.place}.error", ids[:1], 1, self.writes, "vector"),
            Writing(f"{self.place}.bias", ids[:1], 1, self.writes, "units", self.bias[None]),
        )

    def hooks(self, tape: Tape) -> list[Hook]:
        seen: dict[str, Tensor] = {}
        base: dict[str, Tensor] = {}

        def look(tensor: Tensor) -> None:
            value = tensor if self.read.read is None else self.read.read(tensor, seen["base"])
            tape.values[self.site] = self.encoder.pre_activations(tape.of(value)).to(tape.dtype)

        def after(tensor: Tensor) -> Tensor | None:
            return self._passed(tape, tensor, base.get("base"))

        return [
            *self.read.captures(seen),
            self.read.spot.hook(look),
            *self.write.captures(base),
            self.write.spot.hook(after),
        ]

    def _passed(self, tape: Tape, tensor: Tensor, base: Tensor | None) -> Tensor | None:
        own = tape.of(tensor)
        if self.write.read is not None:
            assert base is not None
            own = self.write.read(own, tape.of(base))
        features = self.encoder.activation(tape.values[self.site].detach())
        written = tape.leaf(self.site, features) @ self.U
        rest = own.detach() - written.detach() - self.bias
        ones = tape.leaf(f"{self.place}.bias", torch.ones_like(rest[..., :1]))
        written = written + tape.leaf(f"{self.place}.error", rest) + ones * self.bias
        if not tape.cutting:
            return None
        # What the leaves write takes the place of the site's own value: its step is taken off, theirs is put on.
        step = self.write.factor * ((written - written.detach()) - (own - own.detach()))
        return tensor + step.reshape(tensor.shape).to(tensor.dtype)
