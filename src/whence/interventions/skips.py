"""A transcoder's linear skip stays live where its layer's write is held: held write + skip(x) - skip(x_clean).

Cost: one product with the skip a held layer and pass. Knows nothing of interventions.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from whence.components.sets import DictionarySet
from whence.interventions.sites import Hook, by_example, read_site, site_of
from whence.model.layout import Layout


def live_skips(layout: Layout, dictionary: DictionarySet | None, layers: Collection[int], length: int) -> list[Hook]:
    """Hooks that pass a skip's part of what reaches these layers; none where no dictionary has a skip.

    Args:
        layout: the model.
        dictionary: transcoders.
        layers: whose write is held.
        length: tokens in a pass.
    """
    if dictionary is None:
        return []
    found: list[Hook] = []
    for layer in sorted(set(layers) & set(dictionary.layers)):
        skip = dictionary.skip(layer)
        if skip is not None:
            found += _live(layout, dictionary, layer, skip, length)
    return found


def _live(layout: Layout, dictionary: DictionarySet, layer: int, skip: Tensor, length: int) -> list[Hook]:
    reads, writes = read_site(layout, dictionary.reads, layer), site_of(layout, dictionary.writes, layer)
    seen: dict[str, Tensor] = {}
    through: list[Tensor] = []  # of the clean pass, then of the pass that runs

    @torch.no_grad()
    def look(tensor: Tensor) -> None:
        x = by_example(reads.value(tensor, seen), length)
        now = x.to(skip) @ skip.T
        through[:] = [through[0] if through else now, now]

    def change(tensor: Tensor) -> Tensor | None:
        step = through[1] - through[0]
        return (by_example(tensor, length) + step.to(tensor)).reshape(tensor.shape)

    return [*reads.captures(seen), reads.spot.hook(look), writes.spot.hook(change)]
