"""A model as points of its stream with sublayers between them, and the sites where a circuit's units are.

    h[p + 1] = h[p] + sum over the sublayers of stage p of what they add for h[p]

A site is a point of the stream, or one of three depths of a sublayer's way out. With a site's value held, what stands
before it is not run. Everything is differentiable. Cost: that of the sublayers run. Knows nothing of effects and edges.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.units import Units
from whence.errors import UnsupportedModelError
from whence.model.attention import AttentionTape, tapped
from whence.model.batch import Batch
from whence.model.calls import Calls, record_calls
from whence.model.layout import Layout
from whence.model.norms import probe_norm
from whence.model.selfcheck import BOUND
from whence.model.sublayers import Depth, Passed, Sublayer


@dataclass(frozen=True, eq=False)
class CircuitSite:
    """Where some units are.

    Args:
        name: as in node keys: "resid_post", "attn_z", "mlp" for a transcoder, "embed".
        layer: of the node keys; None for token embeddings without a dictionary.
        units: how its vector is split.
        point: which point of the stream it is; for a sublayer's output, the point that the sublayer reads.
        sublayer: whose output it is; None for the stream.
        depth: where on the sublayer's way out.
        reads: what its features read, if not its own vector: "mlp_in", "mlp_in_normalized", "resid_mid".
    """

    name: str
    layer: int | None
    units: Units
    point: int
    sublayer: Sublayer | None = None
    depth: Depth = "out"
    reads: str | None = None
    embedding: bool = False  # the stream less learned positions

    @property
    def key(self) -> str:
        """`2.resid_post`."""
        return self.name if self.layer is None else f"{self.layer}.{self.name}"


Values: TypeAlias = Mapping[CircuitSite, Tensor]
# (site, its vector, what its features read) -> what takes the vector's place; None leaves it
Edit: TypeAlias = Callable[[CircuitSite, Tensor, Tensor], Tensor | None]


@dataclass(frozen=True, eq=False)
class Network:
    """A model, its stages, and the sites chosen, in the order of the forward pass."""

    layout: Layout
    stages: tuple[tuple[Sublayer, ...], ...]
    sites: tuple[CircuitSite, ...]
    tape: AttentionTape = field(default_factory=lambda: AttentionTape("record"))
    at_point: dict[int, CircuitSite] = field(init=False)
    at_sublayer: dict[Sublayer, CircuitSite] = field(init=False)

    def __post_init__(self) -> None:
        points = {site.point: site for site in self.sites if site.sublayer is None}
        sublayers = {site.sublayer: site for site in self.sites if site.sublayer is not None}
        object.__setattr__(self, "at_point", points)
        object.__setattr__(self, "at_sublayer", sublayers)

    @property
    def end(self) -> int:
        """The last point of the stream."""
        return len(self.stages)

    def sizes(self, d_model: int) -> dict[str, int | bool]:
        """Layers, heads, width, and whether attention and MLP read the same stream."""
        heads = max((sublayer.heads or 0 for stage in self.stages for sublayer in stage), default=0)
        parallel = any(len(stage) > 1 for stage in self.stages)
        layers = len(self.layout.blocks)
        return {"n_layers": layers, "n_heads": heads, "parallel_attn_mlp": parallel, "d_model": d_model}

    @contextmanager
    def running(self) -> Generator[None]:
        """While inside, attention is the family's eager one and told to the tape, where a family lets it be."""
        layout, how = self.layout, self.layout.architecture.patterns
        with ExitStack() as stack:
            stack.enter_context(layout.lock)
            if how is not None and layout.attention:
                modules = tuple(writer.module for writer in layout.attention)
                stack.enter_context(tapped(layout.hf, modules, how, self.tape))
            yield

    def calls(self, batch: Batch) -> Calls:
        """What the sublayers are called with on a batch."""
        return record_calls(self.layout, batch, (s.entrance for stage in self.stages for s in stage))

    # ------------------------------------------------------------ running
    def run(
        self,
        calls: Calls,
        stream: Float[Tensor, "example pos d_model"],
        start: int = 0,
        stop: int | None = None,
        *,
        held: Values = {},  # noqa: B006  # never changed
        edit: Edit | None = None,
        keep: dict[int, Tensor] | None = None,
    ) -> Float[Tensor, "example pos d_model"]:
        """The stream at a point, from the stream at an earlier one.

        Args:
            calls: the batch's.
            stream: at `start`; a site there is held or edited like any other.
            start: the first point.
            stop: the last one.
            held: vectors of sites; what stands before a sublayer's is not run.
            edit: is shown every site that is not held, and may change it.
            keep: is given the stream at every point.
        """
        stop = self.end if stop is None else stop
        for point in range(start, stop + 1):
            site = self.at_point.get(point)
            if site is not None:
                stream = self._stream_site(calls, site, stream, held, edit)
            if keep is not None:
                keep[point] = stream
            if point < stop:
                parts = [self._added(calls, sublayer, stream, held, edit) for sublayer in self.stages[point]]
                stream = stream + torch.stack(parts).sum(0) if len(parts) > 1 else stream + parts[0]
        return stream

    def _stream_site(self, calls: Calls, site: CircuitSite, stream: Tensor, held: Values, edit: Edit | None) -> Tensor:
        constant = calls.position if site.embedding else None
        if site in held:
            value = held[site].to(stream)
            return value if constant is None else value + constant
        value = stream if constant is None else stream - constant
        new = None if edit is None else edit(site, value, value)
        if new is None:
            return stream
        new = new.to(stream)
        return new if constant is None else new + constant

    def _added(self, calls: Calls, sublayer: Sublayer, stream: Tensor, held: Values, edit: Edit | None) -> Tensor:
        """What a sublayer adds to the stream."""
        site = self.at_sublayer.get(sublayer)
        if site is None:
            return sublayer.tail(sublayer.call(calls, sublayer.given(stream)).out, "out")
        if site in held:
            return sublayer.tail(held[site].to(stream), site.depth)
        own, read = self.passed(calls, site, stream)
        new = None if edit is None else edit(site, own, read)
        return sublayer.tail(own if new is None else new.to(own), site.depth)

    def passed(self, calls: Calls, site: CircuitSite, stream: Tensor) -> tuple[Tensor, Tensor]:
        """A sublayer's site for the stream the sublayer reads: its vector, and what its features read."""
        sublayer = site.sublayer
        assert sublayer is not None
        given = sublayer.given(stream)
        own = value_of(sublayer, sublayer.call(calls, given), site.depth)
        return own, own if site.reads is None else read_of(site, sublayer, stream, given)

    def logits(self, calls: Calls, stream: Float[Tensor, "example pos d_model"]) -> Float[Tensor, "example vocab"]:
        """The model's logits at each prompt's last token, from the stream at the last point."""
        layout, rows = self.layout, (calls.batch.lengths - 1).to(stream.device)
        last = stream[torch.arange(len(stream), device=stream.device), rows]
        raw = layout.head(layout.final_norm(last)) * layout.logit_scale
        return raw if layout.softcap is None else layout.softcap * (raw / layout.softcap).tanh()

    def check(self, calls: Calls, logits: Tensor) -> None:
        """Refuse a model whose forward pass is not the sum of its sublayers, run one by one.

        Raises:
            UnsupportedModelError: the logits differ from the model's own.
        """
        own = calls.logits.double()
        gap = float((logits.detach().double() - own).norm() / own.norm().clamp_min(1e-30))
        bound = BOUND.get(self.layout.hf.dtype, BOUND[torch.float32])
        if not gap <= bound:
            raise UnsupportedModelError(
                f"{type(self.layout.hf).__name__}: run sublayer by sublayer its logits are off by {gap:.1e} (bound "
                f"{bound:.0e}), so its circuits cannot be found; please report the family"
            )


def value_of(sublayer: Sublayer, passed: Passed, depth: Depth) -> Tensor:
    """What passed a sublayer at a depth."""
    if depth == "normed" and sublayer.post_norm is not None:
        return sublayer.post_norm(passed.out)
    return passed.at(depth)


def read_of(site: CircuitSite, sublayer: Sublayer, stream: Tensor, given: Tensor) -> Tensor:
    """What the features of a transcoder read."""
    if site.reads == "mlp_in":
        return given
    if site.reads == "resid_mid":
        return stream
    assert sublayer.norm is not None
    probed = probe_norm(sublayer.norm, stream.shape[-1])
    normed = given / sublayer.entered
    return probed.centre(stream.to(probed.gain)) * probed.inverse_scale(stream, normed)[..., None]
