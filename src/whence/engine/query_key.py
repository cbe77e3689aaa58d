"""What one head compares at two positions, as affine maps of what the attention reads, taken from the model itself.

    score = scaling * q . k,      q = Q N(x_query) + a,      k = K N(x_key) + b

Q and K hold everything that stands between: projections however they are stored, norms of queries and keys at the scale
they had, the rotation of each position, all or part of the channels. None of it is re-implemented: the model's own
attention runs once more on its own input, cut behind the maps that read it, and the vectors it hands to its attention
function are differentiated by what those maps put out; a second run on zeros there gives what is constant. `scaling` is
what turns q . k into what the softmax was given, softcap undone, up to what all keys share (which no softmax sees).

Cost: two forward passes, d_head short backward passes. Refuses what is not of this form: position biases (ALiBi), maps
that clip, keys compressed first.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.score_scaling import refusal, scaling_of
from whence.engine.tolerance import tolerance_of
from whence.model.attention import AttentionTape, Scored, tapped
from whence.model.batch import Batch
from whence.model.freeze import Hold, hold_norm
from whence.model.hooks import After, first_tensor, hooked, hooks_paused, replace_first
from whence.model.layout import Layout, Writer
from whence.model.linear import constant_of, pull_linear
from whence.model.recorder import run


@dataclass(frozen=True, eq=False)
class Side:
    """A query or a key at one position, value = rows @ (what the attention reads there) + constant."""

    rows: Float[Tensor, "d_head d_model"]
    constant: Float[Tensor, " d_head"]
    value: Float[Tensor, " d_head"]


@dataclass(frozen=True, eq=False)
class QueryKey:
    """One head's query and key, and the score they make."""

    query: Side
    key: Side
    scaling: float
    score: float
    weight: float


@torch.no_grad()
def query_key(layout: Layout, batch: Batch, writer: Writer, head: int, query: int, key: int, like: Tensor) -> QueryKey:
    """The maps behind one attention score.

    Args:
        layout: the model.
        batch: one prompt.
        writer: the attention.
        head: which of its heads.
        query: position that looks.
        key: position looked at.
        like: of the dtype and on the device of the maps.

    Raises:
        ValueError: the head does not see the key from the query.
        UnsupportedModelError: its scores are not made this way.
    """
    probe = _Probe(layout, batch, writer, like)
    scored = probe.run(replaced=False)
    weight = float(scored.pattern[0, head, query, key])
    if not weight > 0:
        raise ValueError(
            f"{writer.key}.head:{head} gives position {key} no weight from position {query} (a window, a mask, or a "
            "weight of 0); choose a key that it sees"
        )
    group = head // (scored.query.shape[1] // scored.key.shape[1])
    scaling = scaling_of(writer, scored)
    with torch.enable_grad():
        pairs = [(scored.query[0, head, query], query), (scored.key[0, group, key], key)]
        rows = [probe.rows(value, position) for value, position in pairs]
    zero = probe.run(replaced=True)
    constants = [zero.query[0, head, query], zero.key[0, group, key]]
    sides = [
        probe.side(value.detach().to(like), there, zero_value.detach().to(like), position)
        for (value, position), there, zero_value in zip(pairs, rows, constants, strict=True)
    ]
    score = scaling * float(sides[0].value.double() @ sides[1].value.double())
    return QueryKey(sides[0], sides[1], scaling, score, weight)


class _Probe:
    """One attention, run again on the input it had, cut behind the maps that read it."""

    def __init__(self, layout: Layout, batch: Batch, writer: Writer, like: Tensor) -> None:
        self.layout, self.batch, self.writer, self.like = layout, batch, writer, like
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.maps: dict[nn.Module, Tensor] = {}  # what each map that reads the input put out
        self.hold = Hold(AttentionTape("record"))
        self.holds: dict[nn.Module, After | None] = {}

    def run(self, *, replaced: bool) -> Scored:
        """What the attention compares: on the maps' own outputs, or on zeros in their place."""
        seen: list[Scored] = []
        with self.layout.lock, self._tapped(AttentionTape("record", on_scores=seen.append)):
            if self.call is None:
                self._record_call()
                seen.clear()
            assert self.call is not None
            given = first_tensor(*self.call)
            inner = [m for m in self.writer.module.modules() if m not in (self.writer.module, self.writer.write)]
            with torch.enable_grad(), hooked([(module, self._cut(module, given, replaced)) for module in inner]):
                self.writer.module(*self.call[0], **self.call[1])
        return seen[-1]

    @contextmanager
    def _tapped(self, tape: AttentionTape) -> Generator[None]:
        how = self.layout.architecture.patterns
        assert how is not None
        with tapped(self.layout.hf, tuple(w.module for w in self.layout.attention), how, tape):
            yield

    def _record_call(self) -> None:
        def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = first_tensor(args, kwargs).detach().clone()
            self.call = replace_first(args, kwargs, first)

        with torch.no_grad(), hooked(before=[(self.writer.module, keep)]):
            run(self.layout, self.batch)

    def _cut(self, module: nn.Module, given: Tensor, replaced: bool) -> After:
        def cut(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if not isinstance(output, Tensor) or not (args or kwargs):
                return None
            read = first_tensor(args, kwargs)
            if read.data_ptr() == given.data_ptr() and read.numel() == given.numel() and _has_matrix(module):
                if not replaced:
                    self.maps[module] = output.detach().requires_grad_()
                return torch.zeros_like(output) if replaced else self.maps[module]
            if module not in self.holds:
                norm = len(args) + len(kwargs) == 1 and _is_norm(module, read, output)
                self.holds[module] = hold_norm(module, self.hold) if norm else None
            hold = self.holds[module]
            return None if hold is None else hold(args, kwargs, output)

        return cut

    def rows(self, value: Float[Tensor, " d_head"], position: int) -> dict[nn.Module, Float[Tensor, "d_head out"]]:
        """The value's derivative by the outputs of each map at its position."""
        leaves = list(self.maps.values())
        one_by_one = [torch.autograd.grad(v, leaves, retain_graph=True, allow_unused=True) for v in value]
        length = self.batch.ids.shape[1]
        found: dict[nn.Module, Tensor] = {}
        for module, *gradients in zip(self.maps, *one_by_one, strict=True):
            kept = [g.reshape(length, -1)[position] for g in gradients if g is not None]
            if kept:
                found[module] = torch.stack(kept).to(self.like)
        return found

    def side(self, value: Tensor, rows: dict[nn.Module, Tensor], zero: Tensor, position: int) -> Side:
        """The whole map, checked against the value it must give.

        Raises:
            UnsupportedModelError: it does not.
        """
        assert self.call is not None
        given = first_tensor(*self.call)
        width = given.shape[-1]
        read = given.reshape(-1, width)[position].to(self.like)
        total, constant = zero.new_zeros(len(value), width), zero.clone()
        for module, derivative in rows.items():
            total += pull_linear(module, derivative, width)
            bias = constant_of(module, width, self.like)
            constant += 0.0 if bias is None else derivative @ bias
        gap = float((total @ read + constant - value).norm() / value.norm().clamp_min(1e-30))
        if not gap <= tolerance_of(self.layout.hf.dtype):
            raise refusal(self.writer, f"its queries or keys are off by {gap:.0e} from affine maps of what it reads")
        return Side(total, constant, value)


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _is_norm(module: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether the module gives twice its input the same output, as only a norm does."""
    if x.shape != y.shape or any(True for _ in module.children()):
        return False
    with torch.no_grad(), hooks_paused():
        doubled = module(2 * x)
    return bool((doubled - y).norm() < (doubled - 2 * y).norm()) and not torch.equal(x, y)
