"""What an intervention puts in a value's place, once the values it borrows from other prompts are known.

Cost: one forward pass for each set of source prompts, whatever the number of nodes that borrow from it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whence.interventions.kinds import Intervention
from whence.interventions.places import Place, needs_attention
from whence.interventions.seat import Exchange, Pass, Seat, meant, refuse_outside
from whence.model.freeze import held
from whence.model.hooks import hooked
from whence.model.model import Model
from whence.model.recorder import run
from whence.model.sites import as_hooks

BORROWS = ("mean", "resample", "patch")


def exchanges(
    model: Model, prompt: Any, interventions: Sequence[Intervention], places: Sequence[Place]
) -> list[Exchange]:
    """What each intervention does to the values it finds.

    Args:
        model: runs the source prompts.
        prompt: stands in for sources that are None.
        interventions: what to do.
        places: where each lies.

    Raises:
        ValueError: a source prompt that lacks a position to be patched from, or several where one is meant.
    """
    borrowed: dict[int, Tensor] = {}
    waiting = [i for i, one in enumerate(interventions) if one.operation in BORROWS]
    while waiting:
        given = interventions[waiting[0]].source
        together = [i for i in waiting if interventions[i].source is given]
        source = prompt if given is None else given
        found = _recorded(model, source, [interventions[i] for i in together], [places[i] for i in together])
        borrowed.update(zip(together, found, strict=True))
        waiting = [i for i in waiting if i not in together]
    return [_exchange(one, borrowed.get(i)) for i, one in enumerate(interventions)]


@torch.no_grad()
def _recorded(
    model: Model, source: Any, interventions: Sequence[Intervention], places: Sequence[Place]
) -> list[Tensor]:
    """The nodes' values at every real token of the source prompts, one line a token."""
    batch = model.batch(source)
    for one in interventions:
        if one.operation == "patch" and len(batch.ids) > 1:
            raise ValueError(f"{one!r}: a patch comes from one source prompt, got {len(batch.ids)}")
    state = Pass(batch.lengths)
    values: dict[int, Tensor] = {}
    hooks = [
        place.hooks(Seat(state, None, [(None, lambda found, _, i=i: values.update({i: found}))], looks=True))
        for i, place in enumerate(places)
    ]
    looking, changing = ([hook for pair in hooks for hook in pair[side]] for side in (0, 1))
    tap = state.attention.__setitem__ if any(needs_attention(one.node) for one in interventions) else None
    with held(model.layout, on_attention=tap), hooked(*as_hooks([*looking, *changing])):
        run(model.layout, batch)
    return [values[i] for i in range(len(places))]


def _exchange(one: Intervention, borrowed: Tensor | None) -> Exchange:
    if borrowed is not None:
        return _borrowing(one, borrowed)
    value: Any = one.value
    match one.operation:
        case "zero":
            return lambda found, _: torch.zeros_like(found)
        case "scale":
            return lambda found, _: found * value
        case "add":
            return lambda found, _: found + _fitting(one, found)
        case _:
            return lambda found, _: _fitting(one, found).expand_as(found)


def _borrowing(one: Intervention, borrowed: Tensor) -> Exchange:
    if one.operation == "mean":
        return lambda found, _: borrowed.mean(0).expand_as(found)
    if one.operation == "patch":
        return lambda found, positions: _same_place(one, borrowed, positions)
    generator = torch.Generator().manual_seed(one.seed)

    def resample(found: Tensor, positions: Tensor) -> Tensor:
        return borrowed[torch.randint(len(borrowed), (len(found),), generator=generator).to(borrowed.device)]

    return resample


def _fitting(one: Intervention, found: Tensor) -> Tensor:
    value = torch.as_tensor(one.value).to(found)
    if value.shape not in (found.shape[1:], torch.Size(())):
        what = f"vectors of width {found.shape[-1]}" if found.ndim > 1 else "numbers"
        raise ValueError(
            f"{one!r}: its values are {what}; the value given has shape {tuple(value.shape)}. Give a number or "
            f"shape {tuple(found.shape[1:])}"
        )
    return value


def _same_place(one: Intervention, borrowed: Tensor, positions: Tensor) -> Tensor:
    if int(positions.max()) >= len(borrowed):
        raise ValueError(
            f"{one!r}: position {int(positions.max())} is to be patched, and the source prompt has {len(borrowed)} "
            "tokens; give a source as long as the prompt, or name positions= that both have"
        )
    return borrowed[positions]


def refuse_positions(interventions: Sequence[Intervention], length: int) -> None:
    """Refuse positions outside a prompt of this length, in `positions` and in keys.

    Raises:
        ValueError: naming the intervention, the position and the length.
    """
    for one in interventions:
        refuse_outside(repr(one), one.positions, length)
        for position in (one.node.position, one.node.source):
            refuse_outside(repr(one), position, length)


def refuse_tokens(interventions: Sequence[Intervention], ids: Sequence[int]) -> None:
    """Refuse an embedding named after another token than the prompt has there.

    Raises:
        ValueError: naming the intervention, the position and the token that stands there.
    """
    for one in interventions:
        if one.node.name != "embed" or one.node.index is None:
            continue
        named = one.positions if one.node.position is None else one.node.position
        for position in meant(named, len(ids)):
            if ids[position] != one.node.index:
                where = "embed" if one.node.position is None else f"embed@{position}"
                raise ValueError(
                    f"{one!r}: the token at position {position} is {ids[position]}, not {one.node.index}; name "
                    f"'embed:{ids[position]}@{position}', or '{where}' for whatever token stands there"
                )
