"""Interventions put in their seats: where each acts, on which example, and in what order.

Of interventions on one node, each is given the value that those before it left. Nothing is run here but the prompts
that values are borrowed from.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from whence.components.sets import DictionarySet
from whence.interventions.features import dictionary_place
from whence.interventions.kinds import Intervention
from whence.interventions.places import Place, SitePlace, native_place
from whence.interventions.seat import Exchange, Pass, Seat, Turn
from whence.interventions.values import exchanges, refuse_positions, refuse_tokens
from whence.model.batch import Batch
from whence.model.model import Model
from whence.results.keys import Node


def seats(
    model: Model, prompt: Any, lists: Sequence[Sequence[Intervention]], batch: Batch, dictionary: Any, state: Pass
) -> list[tuple[Place, Seat]]:
    """Where each intervention acts and what it does there, in the order given.

    Raises:
        ValueError: a node, position or token that is not there.
    """
    found: list[tuple[Place, Seat]] = []
    for row, group in enumerate(lists):
        of = min(row, len(batch.lengths) - 1)
        ids = batch.ids[of, : int(batch.lengths[of])]
        refuse_positions(group, len(ids))
        refuse_tokens(group, ids.tolist())
        places = [place_of(model, dictionary, one.node) for one in group]
        own = prompt if len(batch.ids) == 1 else ids
        found += _in_turn(state, row, group, places, exchanges(model, own, group, places))
    return found


def _in_turn(
    state: Pass, row: int, group: Sequence[Intervention], places: Sequence[Place], does: Sequence[Exchange]
) -> list[tuple[Place, Seat]]:
    """One seat for each node whose value is computed anew, so that what is done to it twice is done one by one."""
    found: list[tuple[Place, Seat]] = []
    shared: dict[Node, list[Turn]] = {}
    for one, place, exchange in zip(group, places, does, strict=True):
        turn: Turn = (one.positions if one.node.position is None else one.node.position, exchange)
        node = replace(one.node, position=None)
        if node in shared:
            shared[node].append(turn)
            continue
        turns = [turn]
        found.append((place, Seat(state, row, turns)))
        if not isinstance(place, SitePlace):  # there the next one finds what the last one left
            shared[node] = turns
    return found


def place_of(model: Model, dictionary: DictionarySet | None, node: Node) -> Place:
    """Where a node lies, in the model or in a dictionary.

    Raises:
        ValueError: it does not exist, or cannot be changed.
    """
    if node.name.endswith((".feature", ".error")):
        return dictionary_place(model.layout, dictionary, node)
    return native_place(model.layout, node)
