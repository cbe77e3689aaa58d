"""Where a run begins and ends: token embeddings as sources, logits as targets.

`output.stream` reads the final-normed stream by coordinate, so that any token's signed row is one product with its
unembedding row; `output` reads the logits of tokens named beforehand, of which every metric is exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.dataset.sites import FIRST, Reading, StreamRead, StreamWrite, Writing
from whence.engine.dataset.tape import Tape
from whence.model.layout import Layout
from whence.model.sites import Hook, Spot
from whence.results.dataset_axes import STREAM


@dataclass(frozen=True, eq=False)
class EmbeddingSite:
    """The stream before the first block: one vector a token, and one a position where a model learns those."""

    layout: Layout
    seen: Int[Tensor, " token"]  # ids that occur in the data
    whole: bool  # False: the embedding matrix is decomposed, and only positions are left
    closes: None = None
    readings: tuple[Reading, ...] = ()

    @property
    def writings(self) -> tuple[Writing, ...]:
        write, found = StreamWrite(FIRST), list[Writing]()
        size = int(getattr(self.layout.embedding, "num_embeddings", int(self.seen.max()) + 1))
        if self.whole:
            found.append(Writing("embed", self.seen, size, write, "tokens"))
        if self.layout.position is not None:
            found.append(Writing("pos_embed", torch.zeros_like(self.seen[:1]), 1, write, "vector"))
        return tuple(found)

    def hooks(self, tape: Tape) -> list[Hook]:
        seen: dict[str, Tensor] = {}

        def position(output: Tensor) -> None:
            seen["position"] = output

        def stream(given: Tensor) -> Tensor | None:
            return self._passed(tape, given, seen.get("position"))

        found = [Spot(self.layout.blocks[0], before=True).hook(stream)]
        if self.layout.position is not None:
            found.append(Spot(self.layout.position, before=False).hook(position))
        return found

    def _passed(self, tape: Tape, given: Tensor, position: Tensor | None) -> Tensor | None:
        own, live = tape.of(given).detach(), list[Tensor]()
        if position is not None:
            learned = position.detach().to(own).expand_as(own)
            own = own - learned
            live.append(tape.leaf("pos_embed", learned.clone()))
        if self.whole:
            live.append(tape.leaf("embed", own.clone()))
        if not tape.cutting or not live:
            return None
        written = torch.stack(live).sum(0)
        return (given.detach() if self.whole else given) + (written - written.detach()).to(given)


@dataclass(frozen=True, eq=False)
class OutputSite:
    """What the unembedding reads, by coordinate and by token."""

    layout: Layout
    read: StreamRead
    tokens: Int[Tensor, " token"]
    rows: Float[Tensor, "token d_model"]  # unembedding rows of the tokens, scaled as the model scales logits
    constant: Float[Tensor, " token"] | None
    vocabulary: int
    d_model: int
    stream: bool = True  # False: the unembedding is decomposed, so coordinates are read by its components
    closes: None = None
    writings: tuple[Writing, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        found: list[Reading] = []
        if self.stream:
            every = torch.arange(self.d_model, device=self.rows.device)
            eye = torch.eye(self.d_model, dtype=self.rows.dtype, device=self.rows.device)
            found.append(Reading(STREAM, every, self.d_model, self.read, eye, signed_only=True))
        if len(self.tokens):
            found.append(Reading("output", self.tokens, self.vocabulary, self.read, self.rows, self.constant))
        return tuple(found)

    def hooks(self, tape: Tape) -> list[Hook]:
        def before(given: Tensor) -> None:
            final = tape.of(given)
            if self.stream:
                tape.values[STREAM] = final
            if len(self.tokens):
                value = final @ self.rows.T
                tape.values["output"] = value if self.constant is None else value + self.constant

        return [Spot(self.layout.head, before=True).hook(before)]
