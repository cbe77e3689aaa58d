"""What the modules of a model were called with in one forward pass, so that a stretch of it can be run again.

A sublayer is a function of the stream; everything else that it was given (masks, rotations, positions) belongs to the
batch and is given again as it was. Cost: one forward pass. Knows nothing of what is run again, or why.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.model.batch import Batch
from whence.model.hooks import After, Before, first_tensor, hooked, main_output, replace_first
from whence.model.layout import Layout
from whence.model.recorder import run

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Calls:
    """One forward pass, to be run again in part."""

    layout: Layout
    batch: Batch
    given: dict[nn.Module, Call]
    embedded: Float[Tensor, "example pos d_model"]  # the stream before the first block
    position: Float[Tensor, "_ pos d_model"] | None  # the part of it that learned positions are
    logits: Float[Tensor, "example vocab"]  # the model's own, at each prompt's last token

    def again(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """A module's output on other hidden states, everything else as it was."""
        args, kwargs = replace_first(*self.given[module], hidden)
        return main_output(module(*args, **kwargs))

    def of(self, example: Int[Tensor, " line"]) -> "Calls":
        """The calls of a batch with a line for each of these examples, some of them several times."""
        batch, count = self.batch, len(self.batch.lengths)

        def lines(one: Any) -> Any:
            """What a module was given beside hidden states, where it has a line for each example."""
            if isinstance(one, tuple):
                return tuple(lines(part) for part in one)
            has_lines = isinstance(one, Tensor) and one.ndim > 1 and one.shape[0] == count
            return one[example.to(one.device)] if has_lines else one

        given = {
            module: (tuple(map(lines, args)), {name: lines(one) for name, one in kwargs.items()})
            for module, (args, kwargs) in self.given.items()
        }
        short = Batch(batch.ids[example], batch.lengths[example])
        return replace(self, batch=short, given=given, embedded=self.embedded[example], logits=self.logits[example])

    def alone(self, module: nn.Module) -> bool:
        """Whether a module was given nothing beside hidden states that has a place for each token."""
        args, kwargs = self.given[module]
        others = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and one.ndim > 1]
        return not others


@torch.no_grad()
def record_calls(layout: Layout, batch: Batch, modules: Iterable[nn.Module]) -> Calls:
    """The calls of these modules in one forward pass; their hidden states are not kept.

    Args:
        layout: the model.
        batch: prompts.
        modules: whose calls to keep.
    """
    given: dict[nn.Module, Call] = {}
    single: dict[str, Tensor] = {}
    nothing = torch.empty(0)

    def keep(module: nn.Module) -> Before:
        return lambda args, kwargs: given.update({module: replace_first(args, kwargs, nothing)})

    def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        single["embedded"] = first_tensor(args, kwargs).clone()  # blocks may go on to add to it in place

    def last(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = first_tensor(args, kwargs)
        rows = (batch.lengths - 1).to(hidden.device)
        return replace_first(args, kwargs, hidden[torch.arange(len(hidden), device=hidden.device), rows][:, None])

    after: list[tuple[nn.Module, After]] = []
    if layout.position is not None:
        after.append((layout.position, lambda _, __, output: single.update(position=output)))
    before: list[tuple[nn.Module, Before]] = [(layout.blocks[0], stream), (layout.head, last)]
    before += [(module, keep(module)) for module in dict.fromkeys(modules)]
    with layout.lock, hooked(after, before):
        logits = run(layout, batch)[:, 0]
    position = single.get("position")
    if position is not None and position.ndim == 2:
        position = position[None]
    return Calls(layout, batch, given, single["embedded"], position, logits)
