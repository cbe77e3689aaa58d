"""How much each target and each source counts at each token.

    c = importance where a side is weighted and it exceeds the least that counts, 0 below that, 1 on unweighted sides

Importances of parameter components are what their function says; a feature's is whether it is active; everything else
has 1. Padding counts nothing. Cost: the importance function.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.parameters import ParameterComponents
from whence.engine.dataset.passing import Passed
from whence.engine.dataset.sites import Reading, Site, Writing

Weighting = Literal["none", "source", "target", "both"]


@dataclass(frozen=True, eq=False)
class Weighed:
    """Importances of one batch by site, and which tokens are real; tokens are flattened."""

    importance: dict[str, Float[Tensor, "token unit"]]
    real: Float[Tensor, "token 1"]
    weighting: Weighting
    least: float

    def target(self, reading: Reading, count: int) -> Float[Tensor, "token unit"]:
        """The weights c of a site's units as targets."""
        return self._side(reading.site, count, self.weighting in ("target", "both"))

    def source(self, writing: Writing, count: int) -> Float[Tensor, "token unit"]:
        """The weights c of a site's units as sources."""
        return self._side(writing.site, count, self.weighting in ("source", "both"))

    def _side(self, site: str, count: int, weighted: bool) -> Tensor:
        if not weighted or site not in self.importance:
            return self.real.expand(-1, count)
        own = self.importance[site]
        return torch.where(own > self.least, own, 0.0) * self.real


def importances(
    parameters: ParameterComponents | None, sites: tuple[Site, ...], plain: Passed, rows: Int[Tensor, " example"]
) -> dict[str, Float[Tensor, "token unit"]]:
    """Importances of what has any, by site.

    Args:
        parameters: the decomposed matrices, if any.
        sites: the run's.
        plain: a pass of the model as it is.
        rows: which rows of the data the batch is.
    """
    tape = plain.tape
    found = {
        writing.site: (tape.leaves[writing.site].detach() != 0).to(tape.dtype).flatten(0, 1)
        for site in sites
        for writing in site.writings
        if writing.site.endswith(".feature")
    }
    if parameters is not None:
        given = {site: tape.inputs[site] for site in parameters.parts}
        with torch.no_grad():
            said = parameters.importances(given, rows)
        for site, part in parameters.parts.items():
            ids = part.ids.to(said[site].device)
            found[site] = said[site][..., ids].to(tape.dtype).flatten(0, 1)
    return found
