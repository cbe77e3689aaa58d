"""What a circuit is found on: prompts, what they are compared with, the slot of every token, and the metric.

A slot is a position that means the same in every example: by name where the pairs name them, by number where all
prompts have one length, and one for all tokens where positions are summed. Cost: none. Knows nothing of sites.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.engine.circuits.measure import Measure, measure_of
from whence.model.batch import Batch, token_rows
from whence.model.model import Model
from whence.targets.pairs import Pairs


@dataclass(frozen=True, eq=False)
class Part:
    """Some examples that run together."""

    example: Int[Tensor, " n"]  # their numbers
    clean: Batch
    patch: Batch | None
    slot: Int[Tensor, "n pos"]  # -1 at padding


@dataclass(frozen=True, eq=False)
class Examples:
    """All examples."""

    model: Model
    clean: tuple[tuple[int, ...], ...]
    patch: tuple[tuple[int, ...], ...] | None
    measure: Measure
    slots: tuple[tuple[int, ...], ...]  # of every token
    order: tuple[str, ...]  # names of slots; empty where positions are summed
    about: dict[str, Any]  # where they come from, for the record

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def n_slots(self) -> int:
        """How many slots there are; one where positions are summed."""
        return len(self.order) or 1

    def parts(self, size: int) -> Iterator[Part]:
        """The examples, so many at a time."""
        for start in range(0, len(self), size):
            here = range(start, min(start + size, len(self)))
            clean = self.model.batch([list(self.clean[i]) for i in here])
            patch = None if self.patch is None else self.model.batch([list(self.patch[i]) for i in here])
            slot = torch.full(clean.ids.shape, -1, device=clean.ids.device)
            for row, i in enumerate(here):
                slot[row, : len(self.slots[i])] = torch.tensor(self.slots[i], device=slot.device)
            yield Part(torch.tensor(list(here), device=slot.device), clean, patch, slot)


def examples_of(model: Model, clean: Any, patch: Any, metric: Any, *, aligned: bool) -> Examples:
    """The examples that are meant.

    Args:
        model: reads the prompts.
        clean: `Pairs`, or prompts in any form the model takes.
        patch: prompts to compare with, if `clean` is not `Pairs`.
        metric: what to explain; None for the pairs' own answers.
        aligned: whether positions are told apart.

    Raises:
        ValueError: prompts that do not go together, no metric, or positions that do not align.
    """
    pairs = clean if isinstance(clean, Pairs) else None
    if pairs is not None and patch is not None:
        raise ValueError("clean= is Pairs, which hold their patch prompts; leave patch= out")
    rows = pairs.clean if pairs is not None else _rows(model, clean)
    others = pairs.patch if pairs is not None else None if patch is None else _rows(model, patch)
    if others is not None:
        _refuse_unequal(rows, others)
    measure = measure_of(model, metric, pairs, len(rows))
    slots, order = _slots(rows, pairs, aligned)
    about = {} if pairs is None else {"source": pairs.source, "dropped": dict(pairs.dropped)}
    return Examples(model, rows, others, measure, slots, order, {"count": len(rows), **about})


def _rows(model: Model, prompts: Any) -> tuple[tuple[int, ...], ...]:
    rows = tuple(tuple(row) for row in token_rows(prompts, model.tokenizer))
    if not any(rows):
        raise ValueError("no prompt was given; a circuit needs at least one")
    return rows


def _refuse_unequal(rows: tuple[tuple[int, ...], ...], others: tuple[tuple[int, ...], ...]) -> None:
    if len(rows) != len(others):
        raise ValueError(f"{len(rows)} clean prompts and {len(others)} patch prompts; give one patch prompt for each")
    for number, (one, other) in enumerate(zip(rows, others, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"pair {number}: the clean prompt has {len(one)} tokens and the patch prompt {len(other)}; activations "
                "are compared token by token, so choose prompts of one length, or patch=None"
            )


def _slots(
    rows: tuple[tuple[int, ...], ...], pairs: Pairs | None, aligned: bool
) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    if not aligned:
        return tuple((0,) * len(row) for row in rows), ()
    if pairs is not None and pairs.slots is not None:
        number = {name: i for i, name in enumerate(pairs.order)}
        return tuple(tuple(number[name] for name in row) for row in pairs.slots), pairs.order
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"aggregate='none' keeps positions, and prompts have lengths {lengths}; give pairs whose positions have "
            "names (load_pairs(..., slots=)), or prompts of one length"
        )
    return (tuple(range(lengths[0])),) * len(rows), tuple(map(str, range(lengths[0])))
