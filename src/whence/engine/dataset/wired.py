"""A run settled: what is summed, over which sites, and by which way each source reaches each target.

Nothing is computed here; `wiring.py` makes it. Knows nothing of batches and windows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor, nn

from whence.components.parameters import ParameterComponents
from whence.engine.dataset.blocks import Pair
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.rotations import Compared
from whence.engine.dataset.routes import Route
from whence.engine.dataset.sites import Reading, Site, Writing
from whence.engine.dataset.weighing import Weighting
from whence.model.batch import Batch
from whence.model.layout import Layout
from whence.model.sublayers import Sublayer


@dataclass(frozen=True)
class Options:
    """What is summed, and how.

    Args:
        metrics: of `whence.results.dataset_axes.METRICS`.
        live: let norms move.
        weighting: which sides count by their importance.
        least: importances up to this count as 0.
        spd: as spd's pull request 413: no deltas, squares of sums over positions, embeddings squared by coordinate.
    """

    metrics: tuple[str, ...]
    live: bool = False
    weighting: Weighting = "none"
    least: float = 0.0
    spd: bool = False


@dataclass(frozen=True, eq=False)
class Wired:
    """Everything that is settled before the first batch."""

    layout: Layout
    sites: tuple[Site, ...]
    parameters: ParameterComponents | None
    seen: Int[Tensor, " token"]
    dtype: torch.dtype
    options: Options
    routes: Mapping[Pair, Route]
    compared: Mapping[Sublayer, Compared] = field(default_factory=dict[Sublayer, Compared])

    @cached_property
    def readings(self) -> dict[str, Reading]:
        return {reading.site: reading for site in self.sites for reading in site.readings}

    @property
    def pulled(self) -> tuple[Pair, ...]:
        """The pairs that no closed form reaches."""
        return tuple(pair for pair, route in self.routes.items() if route == "backward")

    @cached_property
    def writings(self) -> dict[str, Writing]:
        """The sources; without deltas where the model runs without them."""
        found = {writing.site: writing for site in self.sites for writing in site.writings}
        return {name: one for name, one in found.items() if not (self.options.spd and name.endswith(".delta"))}

    def passed(
        self,
        batch: Batch,
        *,
        cutting: bool = False,
        heard: Collection[nn.Module] | None = None,
        eager: bool = True,
    ) -> Passed:
        """What a pass over a batch tells of the sites, with norms and deltas as the options say."""
        options = self.options
        return passed_through(
            self.layout,
            batch,
            self.sites,
            self.dtype,
            cutting=cutting,
            frozen=not options.live,
            complete=not options.spd,
            heard=heard,
            eager=eager,
        )

    def metrics_of(self, reading: Reading) -> tuple[str, ...]:
        """Coordinates of the stream have the signed metric only."""
        if not reading.signed_only or self.options.spd:
            return self.options.metrics
        return tuple(metric for metric in self.options.metrics if metric == "attr")
