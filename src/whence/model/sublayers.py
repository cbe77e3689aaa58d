"""A block's sublayers as functions of the stream, found out by running the model once.

    added = factor * PN(out),    out = module(entered * N(x)) = written * (W inside + b)

N is the norm the sublayer reads through, W its last map, PN its post-norm. What a family multiplies in between shows in
the numbers: each of the three factors is measured, and a sublayer that is not of this form is refused. Cost: two
forward passes of 2 x 6 tokens. Knows nothing of heads, neurons and experts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.batch import Batch
from whence.model.calls import Calls
from whence.model.hooks import After, Before, first_tensor, hooked, main_output
from whence.model.layout import Layout, Writer
from whence.model.recorder import record
from whence.model.selfcheck import BOUND, few_tokens
from whence.model.sites import Spot
from whence.model.trace import Wanted, Write

Kind = Literal["attn", "mlp", "ssm"]
_KINDS: dict[str, Kind] = {"attn": "attn", "ssm": "ssm", "mlp": "mlp", "moe": "mlp", "moe.shared": "mlp"}
Depth = Literal["inside", "out", "normed"]  # what the last map is given, what the module puts out, behind the post-norm


@dataclass(frozen=True, eq=False)
class Sublayer:
    """One thing in a block that reads the stream and adds to it."""

    layer: int
    stage: int
    kind: Kind
    norm: nn.Module | None
    entrance: nn.Module
    between: Callable[[Tensor], Tensor] | None  # from the entrance's output on, where no module holds the whole
    write: nn.Module | None  # None: a container of experts
    out: nn.Module
    post_norm: nn.Module | None
    heads: int | None
    entered: float = 1.0
    written: float = 1.0
    factor: float = 1.0

    @property
    def key(self) -> str:
        """What it is called: `2.mlp`."""
        return f"{self.layer}.{self.kind}"

    def spot(self, depth: Depth) -> Spot:
        """Where its output is found on its way to the stream."""
        if depth == "inside":
            if self.write is None:
                raise UnsupportedModelError(f"{self.key} is a mixture of experts, so it has no one last map")
            return Spot(self.write, before=True)
        return Spot(self.post_norm if depth == "normed" and self.post_norm is not None else self.out, before=False)

    def given(self, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """What its module is given for this stream."""
        normed = stream if self.norm is None else self.norm(stream)
        return normed if self.entered == 1.0 else self.entered * normed

    def call(self, calls: Calls, given: Float[Tensor, "*rows d_model"]) -> "Passed":
        """What its last map is given and what comes out, for what its module is given."""
        if self.between is not None:
            assert self.write is not None
            inside = self.between(self.entrance(given))
            return Passed(inside, self.write(inside))
        seen: dict[str, Tensor] = {}
        before: list[tuple[nn.Module, Before]] = []
        if self.write is not None:
            before.append((self.write, lambda args, kwargs: seen.update(inside=first_tensor(args, kwargs))))
        after: list[tuple[nn.Module, After]] = [(self.out, lambda _, __, output: seen.update(out=main_output(output)))]
        with hooked(after, before):
            calls.again(self.entrance, given)
        rows = given.shape[:-1]
        inside = seen.get("inside")
        return Passed(None if inside is None else inside.reshape(*rows, -1), seen["out"].reshape(*rows, -1))

    def tail(self, value: Float[Tensor, "*rows width"], depth: Depth) -> Float[Tensor, "*rows d_model"]:
        """What the stream receives for a value on the way out."""
        if depth == "inside":
            assert self.write is not None
            value = self.written * self.write(value)
        if depth != "normed" and self.post_norm is not None:
            value = self.post_norm(value)
        return self.factor * value


@dataclass(frozen=True, eq=False)
class Passed:
    """What passed a sublayer on its way out."""

    inside: Tensor | None
    out: Tensor

    def at(self, depth: Depth) -> Tensor:
        """At one of its depths before the post-norm."""
        if depth == "inside":
            assert self.inside is not None
            return self.inside
        return self.out


@torch.no_grad()
def sublayers_of(layout: Layout, vocab_size: int) -> tuple[Sublayer, ...]:
    """The sublayers of every block, in the order they write.

    Args:
        layout: the model.
        vocab_size: token ids below this may be used to look at it.

    Raises:
        UnsupportedModelError: a sublayer that is not a function of the stream of this form.
    """
    batch = few_tokens(layout, vocab_size)
    trace = record(layout, batch, batch.rows(None), wanted=Wanted(sublayers=True))
    total = trace.embedding if trace.position is None else trace.embedding + trace.position
    found: list[Sublayer] = []
    bound = BOUND.get(layout.hf.dtype, BOUND[torch.float32])
    for layer in range(len(layout.blocks)):
        writes = [write for write in trace.writes if write.writer.layer == layer]
        for stage in sorted({write.writer.stage for write in writes}):
            here = [write for write in writes if write.writer.stage == stage]
            for entrance in dict.fromkeys(write.writer.entrance for write in here):
                group = [write for write in here if write.writer.entrance is entrance]
                found.append(_measured(layout, group, total, batch, bound))
            total = total + sum(write.added(total.dtype) for write in here)
    return tuple(found)


def _measured(layout: Layout, writes: list[Write], stream: Tensor, batch: Batch, bound: float) -> Sublayer:
    """A sublayer with its factors, or a refusal."""
    plain = _plain(layout, writes[0].writer)
    around, added = writes[0].sublayer, torch.stack([write.added(stream.dtype) for write in writes]).sum(0)
    assert around is not None
    entered = _ratio(plain, "given", around.input, plain.given(stream), batch, bound)
    out = around.output if plain.between is None else writes[0].output
    own, written = writes[0].output, 1.0
    if plain.write is not None:
        try:
            written = _ratio(plain, "written", out, own, batch, bound)
        except UnsupportedModelError:  # the module's output holds more than its own: a residual added within
            plain, out = replace(plain, out=plain.write), own
    factor = _ratio(plain, "added", added, plain.tail(out, "out"), batch, bound)
    return replace(plain, entered=entered, written=written, factor=factor)


def _plain(layout: Layout, writer: Writer) -> Sublayer:
    whole = writer.module is not writer.write or writer.up is None
    return Sublayer(
        layer=writer.layer,
        stage=writer.stage,
        kind=_KINDS[writer.name],
        norm=writer.norm,
        entrance=writer.entrance,
        between=None if whole else _after_entrance(layout, writer),
        write=None if writer.name.startswith("moe") else writer.write,
        out=writer.module,
        post_norm=writer.post_norm,
        heads=writer.heads,
    )


def _after_entrance(layout: Layout, writer: Writer) -> Callable[[Tensor], Tensor]:
    """The activation of an MLP that is no module of its own (OPT)."""
    activation = getattr(layout.blocks[writer.layer], "activation_fn", None)
    if not callable(activation):
        raise UnsupportedModelError(f"{writer.key}: its block does not tell its activation function")
    return cast("Callable[[Tensor], Tensor]", activation)


def _ratio(sublayer: Sublayer, what: str, whole: Tensor, part: Tensor, batch: Batch, bound: float) -> float:
    """The factor that makes one tensor of the other.

    Raises:
        UnsupportedModelError: there is none.
    """
    real = batch.mask
    whole, part = (one.reshape(*real.shape, -1)[real].double() for one in (whole, part))
    if not whole.any() and not part.any():  # silent on these tokens, which says nothing about a factor
        return 1.0
    factor = float((whole * part).sum() / part.square().sum().clamp_min(1e-30))
    gap = float((whole - factor * part).norm() / whole.norm().clamp_min(1e-30))
    if not gap <= bound:
        raise UnsupportedModelError(
            f"{sublayer.key}: what is {what} there is no multiple of what its family's entry leads to expect (off by "
            f"{gap:.0e}), so a stretch of this model cannot be run again on its own; see docs/adding-a-model.md"
        )
    return 1.0 if abs(factor - 1) <= bound else factor
