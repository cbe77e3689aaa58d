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

    def tokens(self, example: Int[Tensor, " n"], position: Int[Tensor, " n"]) -> "Calls":
        """The calls of single tokens, each as a prompt of its own that stands at its position.

        For what a module does token by token: rotations and position ids are those of the tokens, masks stay as they
        were and mean nothing.
        """
        shapes = [(rows, self.batch.ids.shape[1]) for rows in (1, len(self.batch.lengths))]

        def taken(one: Any) -> Any:
            if isinstance(one, tuple):
                return tuple(taken(part) for part in one)
            if not isinstance(one, Tensor) or one.ndim not in (2, 3) or tuple(one.shape[:2]) not in shapes:
                return one
            where = example.to(one.device) if one.shape[0] > 1 else torch.zeros_like(example, device=one.device)
            return one[where, position.to(one.device)][:, None]

        given = {
            module: (tuple(map(taken, args)), {name: taken(one) for name, one in kwargs.items()})
            for module, (args, kwargs) in self.given.items()
        }
        return replace(self, given=given)

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
