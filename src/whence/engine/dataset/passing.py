"""One forward pass over a batch with every site told of it: recorded, or cut into leaves.

Cost: one forward pass, with eager attention unless nothing needs it, and logits at one token only; memory of the
patterns that are kept. A cut pass keeps its graph. Knows nothing of sums.
"""

from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.dataset.sites import Site
from whence.engine.dataset.tape import Tape
from whence.model.attention import Attention, AttentionTape, tapped
from whence.model.batch import Batch
from whence.model.freeze import held
from whence.model.hooks import first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.recorder import run
from whence.model.sites import as_hooks


@dataclass(frozen=True, eq=False)
class Attended:
    """What one attention was given, and its pattern."""

    query: Float[Tensor, "example head query d_head"]
    key: Float[Tensor, "example group key d_head"]
    value: Float[Tensor, "example group key d_head"]
    pattern: Float[Tensor, "example head query key"]


@dataclass(eq=False)
class Passed:
    """What a pass left behind."""

    batch: Batch
    tape: Tape
    attended: dict[nn.Module, Attended] = field(default_factory=dict[nn.Module, Attended])


@contextmanager
def listening(layout: Layout, tape: Tape, passed: Passed, heard: Collection[nn.Module] | None) -> Generator[None]:
    """While inside, attentions' queries, keys, values and pattern are kept, where a family lets them be read."""
    how, given = layout.architecture.patterns, list[tuple[Tensor, Tensor, Tensor]]()

    def attend(module: nn.Module, attention: Attention) -> None:
        own = given.pop()
        if heard is not None and module not in heard:
            return
        query, key, value = (one.detach().to(tape.dtype) for one in own)
        passed.attended[module] = Attended(query, key, value, attention.pattern.detach().to(tape.dtype))

    if how is None or not layout.attention:
        yield
        return
    ear = AttentionTape("record", on_attention=attend, on_given=lambda q, k, v: given.append((q, k, v)))
    with tapped(layout.hf, tuple(writer.module for writer in layout.attention), how, ear):
        yield


def passed_through(
    layout: Layout,
    batch: Batch,
    sites: Sequence[Site],
    dtype: torch.dtype,
    *,
    cutting: bool = False,
    frozen: bool = True,
    complete: bool = True,
    heard: Collection[nn.Module] | None = None,
    eager: bool = True,
) -> Passed:
    """What a forward pass tells of the sites.

    Args:
        layout: the model.
        batch: rows of tokens, padded on the right.
        sites: what to tell of.
        dtype: what is computed in.
        cutting: make every source a leaf.
        frozen: in a cut pass, hold every norm at its scale.
        complete: False runs the model without what components miss of their matrices.
        heard: the attentions to keep; all if None.
        eager: False lets the model attend as it likes, and keeps none; a cut pass needs eager attention, for fused
            attention has no batched backward pass, and what stands beside it needs the same numbers.
    """
    tape = Tape(batch.ids.shape[1], dtype, cutting, complete)
    passed = Passed(batch, tape)
    norms = {sub.norm for sub in layout.writers} | {sub.post_norm for sub in layout.writers} | {layout.final_norm}
    with ExitStack() as stack:
        stack.enter_context(layout.lock)
        stack.enter_context(torch.set_grad_enabled(cutting))
        if cutting and frozen:
            stack.enter_context(held(layout, norms=True))
        after, before = as_hooks([hook for site in sites for hook in site.hooks(tape)])
        after += [tape.keep_around(norm) for norm in norms if norm is not None]
        before += [tape.keep_call(writer.entrance) for writer in layout.writers if writer.name == "mlp"]
        stack.enter_context(hooked(after, [*before, (layout.head, _first_only)]))
        if eager:
            stack.enter_context(listening(layout, tape, passed, heard))
        run(layout, batch)
    return passed


def _first_only(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return replace_first(args, kwargs, first_tensor(args, kwargs)[:, :1])  # nobody asks for logits
