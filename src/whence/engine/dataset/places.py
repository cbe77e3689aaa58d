"""The places of a model where sites can stand, each taken once.

Cost: two forward passes of a few tokens, which find the sublayers.
"""

from typing import Any

import torch

from whence.engine.dataset.sites import Depth, Site, StreamRead, StreamWrite
from whence.model.model import Model
from whence.model.sublayers import Sublayer, sublayers_of


class Places:
    """A model's places, and the sites that stand there so far.

    Args:
        model: the model.

    Raises:
        UnsupportedModelError: a model that is no sum of sublayers.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.layout = model, model.layout
        self.like = torch.zeros((), dtype=model.accumulation, device=model.device)
        self.sublayers = sublayers_of(model.layout, model._embedded_tokens())
        stages = sorted({(one.layer, one.stage) for one in self.sublayers})
        self.depth = {one: stages.index((one.layer, one.stage)) for one in self.sublayers}
        self.end = len(stages)
        self.taken: dict[Any, str] = {}
        self.sites: list[tuple[int, Site]] = []

    def entry(self, sublayer: Sublayer) -> StreamRead:
        """Where a sublayer reads the stream."""
        return StreamRead(4 * self.depth[sublayer] + 2, sublayer.norm, sublayer.entered)

    def exit(self, sublayer: Sublayer, depth: Depth) -> StreamWrite:
        """Where it writes."""
        return StreamWrite(4 * self.depth[sublayer] + 3, sublayer, depth)

    def final(self) -> StreamRead:
        """Where the unembedding reads."""
        return StreamRead(4 * self.end + 2, self.layout.final_norm)

    def sublayer(self, layer: int | None, kind: str) -> Sublayer:
        """A layer's sublayer of a kind.

        Raises:
            ValueError: it has none.
        """
        for one in self.sublayers:
            if one.layer == layer and one.kind == kind:
                return one
        raise ValueError(f"{self.model.name} has no {kind} sublayer in layer {layer}")

    def take(self, what: Any, name: str, time: int, site: Site) -> None:
        """Let a site stand at a place.

        Raises:
            ValueError: another stands there.
        """
        if what in self.taken:
            raise ValueError(
                f"components= says twice what stands at one place: {self.taken[what]} and {name}. Drop one."
            )
        self.taken[what] = name
        self.sites.append((time, site))
