"""A transcoder's linear skip stays live where its layer's write is held: held write + skip(x) - skip(x_clean).

At a special first token, where a graph takes the MLP's write as a whole, the skip is held with it.
Cost: one product with the skip a held layer and pass. Knows nothing of interventions.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from whence.components.sets import DictionarySet
from whence.engine.prompts import bos_positions
from whence.model.batch import Batch
from whence.model.freeze import Hold
from whence.model.layout import Layout
from whence.model.model import Model
from whence.model.sites import Hook, by_example, read_site, site_of


def live_skips(
    layout: Layout,
    dictionary: DictionarySet | None,
    layers: Collection[int],
    hold: Hold,
    cut: Bool[Tensor, "example pos"],
) -> list[Hook]:
    """Hooks that pass a skip's part of what reaches these layers; none where no dictionary has a skip.

    Args:
        layout: the model.
        dictionary: transcoders.
        layers: whose write is held.
        hold: what holds it, and may let go.
        cut: the prompt's positions where nothing is passed.
    """
    if dictionary is None:
        return []
    found: list[Hook] = []
    for layer in sorted(set(layers) & set(dictionary.layers)):
        skip = dictionary.skip(layer)
        if skip is not None:
            found += _live(layout, dictionary, layer, skip, hold, cut)
    return found


def cut_at(model: Model, batch: Batch, bos: Sequence[int] | None) -> Bool[Tensor, "example pos"]:
    """True at these positions of each prompt; None for those at which a graph of it trusts no dictionary."""
    cut = torch.zeros(batch.ids.shape, dtype=torch.bool, device=batch.ids.device)
    for row in range(len(cut)):
        one = Batch(batch.ids[row : row + 1], batch.lengths[row : row + 1])
        cut[row, list(bos_positions(model, one, None) if bos is None else bos)] = True
    return cut


def _live(
    layout: Layout, dictionary: DictionarySet, layer: int, skip: Tensor, hold: Hold, cut: Bool[Tensor, "example pos"]
) -> list[Hook]:
    reads, writes = read_site(layout, dictionary.reads, layer), site_of(layout, dictionary.writes, layer)
    length = cut.shape[1]
    seen: dict[str, Tensor] = {}
    through: list[Tensor] = []  # of the clean pass, then of the pass that runs

    @torch.no_grad()
    def look(tensor: Tensor) -> None:
        if not hold.active:
            return
        x = by_example(reads.value(tensor, seen), length)
        now = x.to(skip) @ skip.T
        through[:] = [through[0] if through else now, now]

    def change(tensor: Tensor) -> Tensor | None:
        if not hold.active:
            return None
        step = (through[1] - through[0]).masked_fill(cut[..., None].to(tensor.device), 0)
        return (by_example(tensor, length) + step.to(tensor)).reshape(tensor.shape)

    return [*reads.captures(seen), reads.spot.hook(look), writes.spot.hook(change)]
