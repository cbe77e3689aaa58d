"""What units are taken to in place of what they say: the patch prompt's own, nothing, a mean, or given vectors.

    "patch"      what the unit says on the patch prompt at the same token
    "zero"       features and errors 0; of other sites the vector 0
    "mean"       the mean over the patch prompts (the clean ones where there are none), slot by slot where positions
                 align and over all tokens where they do not
    a tensor     a vector for every token of a site, split into units by the site's dictionary; or a mapping from
                 sites' keys ("2.resid_post") to vectors, where the other sites stay clean

Cost: one forward pass of the prompts it is taken from. Knows nothing of effects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.engine.circuits.examples import Examples, Part
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import State, look
from whence.engine.circuits.units import Said

KINDS = ("patch", "zero", "mean")
BySlot = dict[CircuitSite, Said]  # [slot, ...]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Where units go."""

    kind: str
    means: BySlot | None = None
    vectors: Mapping[CircuitSite, Tensor] | None = None

    def moves(self, site: CircuitSite) -> bool:
        """Whether a site has a baseline at all."""
        return self.vectors is None or site in self.vectors

    def delta(self, network: Network, part: Part, clean: State) -> dict[CircuitSite, Said]:
        """Baseline minus clean, of what the units of every site say."""
        return {site: said.minus(clean.said[site]) for site, said in self.said(network, part, clean).items()}

    def said(self, network: Network, part: Part, clean: State) -> dict[CircuitSite, Said]:
        """What the units of every site say there."""
        patch = None
        if self.kind == "patch":
            assert part.patch is not None
            patch = look(network, network.calls(part.patch))
        return {site: self._said(site, part, said, patch) for site, said in clean.said.items()}

    def _said(self, site: CircuitSite, part: Part, clean: Said, patch: State | None) -> Said:
        if patch is not None:
            return patch.said[site]
        if self.means is not None:
            slot = part.slot.clamp_min(0)
            return Said(self.means[site].features[slot], self.means[site].vectors[slot])
        if self.vectors is None:
            return Said(torch.zeros_like(clean.features), torch.zeros_like(clean.vectors))
        if site not in self.vectors:
            return clean
        rows = clean.vectors.shape[:-2]
        vector = self.vectors[site].to(clean.vectors).expand(*rows, -1)
        return site.units.split(vector, vector)


def baseline_of(network: Network, examples: Examples, given: Any, batch_size: int) -> Baseline:
    """The baseline that is meant.

    Raises:
        ValueError: another word; "patch" without patch prompts; a vector of the wrong width, or for no site.
        TypeError: something else.
    """
    if isinstance(given, str):
        if given not in KINDS:
            raise ValueError(f"baseline={given!r}; it is one of {', '.join(KINDS)}, or a tensor")
        if given == "patch" and examples.patch is None:
            raise ValueError("baseline='patch' needs patch prompts; give patch=, or baseline='zero' or 'mean'")
        means = mean_by_slot(network, examples, batch_size) if given == "mean" else None
        return Baseline(given, means)
    return Baseline("given", vectors=_vectors(network, given))


def _vectors(network: Network, given: Any) -> dict[CircuitSite, Tensor]:
    if isinstance(given, Tensor):
        chosen = [site for site in network.sites if site.layer is not None] or list(network.sites)
        if len(chosen) != 1:
            keys = ", ".join(site.key for site in chosen)
            raise ValueError(
                f"baseline= is one tensor for {len(chosen)} sites ({keys}); give a mapping from their keys"
            )
        given = {chosen[0].key: given}
    if not isinstance(given, Mapping):
        raise TypeError(f"baseline= is {type(given).__name__}; it is one of {', '.join(KINDS)}, a tensor or a mapping")
    sites = {site.key: site for site in network.sites}
    unknown = [str(key) for key in given if key not in sites]
    if unknown:
        raise ValueError(f"baseline= has vectors for {', '.join(unknown)}; the circuit's sites are {', '.join(sites)}")
    return {sites[key]: _checked(sites[key], vector) for key, vector in given.items()}


def _checked(site: CircuitSite, vector: Tensor) -> Tensor:
    width = site.units.width
    if vector.ndim != 1 or len(vector) != width or not bool(vector.isfinite().all()):
        raise ValueError(f"baseline for {site.key}: give one finite vector of width {width}, not {list(vector.shape)}")
    if site.reads is not None:
        raise ValueError(f"baseline for {site.key}: its transcoder reads elsewhere, so no vector tells its features")
    return vector


@torch.no_grad()
def mean_by_slot(network: Network, examples: Examples, batch_size: int) -> BySlot:
    """The mean of what units say, over the patch prompts or else the clean ones, slot by slot."""
    sums: dict[CircuitSite, tuple[Tensor, Tensor]] = {}
    counts = torch.zeros(examples.n_slots)
    for part in examples.parts(batch_size):
        real = part.slot >= 0
        slot = part.slot[real]
        counts = counts.to(slot.device).index_add(0, slot, torch.ones(len(slot), device=slot.device))
        state = look(network, network.calls(part.clean if part.patch is None else part.patch))
        for site, said in state.said.items():
            before = sums.get(site, (0.0, 0.0))
            both = zip(before, (said.features, said.vectors), strict=True)
            sums[site] = tuple(_added(old, rows[real], slot, examples.n_slots) for old, rows in both)  # type: ignore[assignment]
    return {site: Said(*(_divided(one, counts) for one in both)) for site, both in sums.items()}


def _added(old: Any, rows: Tensor, slot: Tensor, slots: int) -> Tensor:
    return old + rows.new_zeros(slots, *rows.shape[1:]).index_add(0, slot, rows)


def _divided(total: Tensor, counts: Tensor) -> Tensor:
    return total / counts.clamp_min(1).to(total).view(-1, *(1,) * (total.ndim - 1))
