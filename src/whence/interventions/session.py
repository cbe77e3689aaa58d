"""Interventions in their seats: every hook in place for a clean pass and the changed passes after it, then off again.

    clean pass     what is held is recorded, and features of held layers are noted
    changed pass   one example for each list of interventions

Cost: a few hooks for each intervention, whatever the size of the batch.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whence.components.sets import DictionarySet, as_dictionary_set
from whence.interventions.features import FeaturePlace
from whence.interventions.kinds import Intervention
from whence.interventions.outcome import Watched
from whence.interventions.places import needs_attention
from whence.interventions.seat import Pass, Seat
from whence.interventions.seating import place_of, seats
from whence.interventions.skips import cut_at, live_skips
from whence.model.batch import Batch
from whence.model.freeze import Hold, held
from whence.model.hooks import hooked
from whence.model.model import Model
from whence.model.sites import Hook, as_hooks
from whence.results.keys import Node


@dataclass(frozen=True)
class Freeze:
    """What stays as it is in the clean run while interventions act.

    Args:
        attention: attention patterns; values still flow through them.
        norms: the scale of every norm.
        layers: layers whose MLPs, experts and recurrences write what they wrote, except where an intervention changes
            that very write; a dictionary's linear skip still passes its part, but for a special first token, where
            graphs trust no dictionary. With all layers, attention and norms held an effect is the direct one, which
            a graph's weights predict.

    Example:
        >>> Freeze(attention=True, norms=True, layers=range(4)).layers
        range(0, 4)
    """

    attention: bool = False
    norms: bool = False
    layers: Sequence[int] | None = None


@dataclass(eq=False)
class Session:
    """Hooks in place: first for the clean pass, after `begin` for those that change."""

    run: Pass
    hold: Hold
    seen: dict[tuple[Node, bool, bool], Tensor]

    def begin(self, batch: Batch) -> None:
        """From now on, act."""
        self.run.clean, self.run.lengths = False, batch.lengths

    def watched(self, batch: Batch) -> dict[str, Watched]:
        """The values seen, laid out as [example, pos, ...]."""
        found: dict[str, Watched] = {}
        for node in dict.fromkeys(node for node, _, _ in self.seen):
            sides = [self._laid_out(batch, node, clean, False) for clean in (True, False)]
            pre = [self._laid_out(batch, node, clean, True) for clean in (True, False)]
            found[str(node)] = Watched(*sides, *pre)  # pyright: ignore[reportArgumentType]  # values are always seen
        return found

    def _laid_out(self, batch: Batch, node: Node, clean: bool, before: bool) -> Tensor | None:
        lines = self.seen.get((node, before, clean))
        if lines is None:
            return None
        mask = batch.mask
        lines = lines if len(lines) == int(mask.sum()) else lines.repeat(len(mask), *[1] * (lines.ndim - 1))
        laid = lines.new_full((*mask.shape, *lines.shape[1:]), torch.nan)
        laid[mask] = lines
        return laid


@contextmanager
def seated(
    model: Model,
    prompt: Any,
    lists: Sequence[Sequence[Intervention]],
    batch: Batch,
    dictionary: Any,
    freeze: Freeze,
    watch: Sequence[str | Node] = (),
    *,
    bos: Sequence[int] | None = None,
) -> Generator[Session]:
    """Everything in place for a clean pass over `batch` and then changed ones.

    Args:
        model: the model.
        prompt: as given, for interventions that borrow values from it.
        lists: what to do, one list for each example.
        batch: the prompt.
        dictionary: for features, errors and skips.
        freeze: what is held.
        watch: nodes whose values are noted.
        bos: positions where a held write is whole, without a live skip; None for a special first token.
    """
    dictionary = as_set(dictionary, model)
    _refuse_layers(freeze.layers, model.n_layers)
    layers = frozenset(freeze.layers or ())
    state = Pass(batch.lengths, layers, clean=True)
    seen: dict[tuple[Node, bool, bool], Tensor] = {}
    flat = [one for group in lists for one in group]
    hooks = [place.hooks(seat) for place, seat in seats(model, prompt, lists, batch, dictionary, state)] + _watchers(
        model, dictionary, watch, state, seen
    )
    nodes = [one.node for one in flat] + [_bare(node) for node in watch]
    tap = state.attention.__setitem__ if any(map(needs_attention, nodes)) else None
    looking, changing = ([hook for pair in hooks for hook in pair[side]] for side in (0, 1))
    with (
        held(model.layout, attention=freeze.attention, norms=freeze.norms, layers=layers, on_attention=tap) as hold,
        hooked(*as_hooks(live_skips(model.layout, dictionary, layers, hold, cut_at(model, batch, bos)))),
        hooked(*as_hooks([*looking, *changing])),
    ):
        yield Session(state, hold, seen)


def _refuse_layers(layers: Sequence[int] | None, count: int) -> None:
    missing = [layer for layer in layers or () if not 0 <= layer < count]
    if missing:
        raise ValueError(f"Freeze(layers=...) names {missing}; the model has layers 0 to {count - 1}")


def _watchers(
    model: Model, dictionary: Any, watch: Sequence[str | Node], state: Pass, seen: dict[tuple[Node, bool, bool], Tensor]
) -> list[tuple[list[Hook], list[Hook]]]:
    """Hooks behind all others that note the values of nodes."""
    found: list[tuple[list[Hook], list[Hook]]] = []
    for node in map(_bare, watch):
        place = place_of(model, dictionary, node)
        kinds = [place, replace(place, before_activation=True)] if isinstance(place, FeaturePlace) else [place]
        for before, one in enumerate(kinds):

            def note(lines: Tensor, _: Tensor, node: Node = node, before: bool = bool(before)) -> None:
                seen[node, before, state.clean] = lines.clone()

            found.append(one.hooks(Seat(state, None, [(None, note)], looks=True)))
    return found


def _bare(given: str | Node) -> Node:
    node = Node.parse(given) if isinstance(given, str) else given
    if node.position is not None:
        raise ValueError(f"watch={str(node)!r} names a position; leave '@{node.position}' out: all positions are kept")
    return node


def as_set(dictionary: Any, model: Model) -> DictionarySet | None:
    """The dictionaries given as one set that fits the model.

    Raises:
        TypeError: something else than dictionaries.
        ValueError: dictionaries of another width or of layers the model lacks.
    """
    if dictionary is None:
        return None
    found = as_dictionary_set(dictionary).to(model.device)
    found.check_fits(model.d_model, model.n_layers)
    return found
