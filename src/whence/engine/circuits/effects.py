"""What happens to the metric when a unit goes from its clean value to the baseline: three ways.

    gradient               G · delta,   G = dm/dx at the clean point: one forward and one backward pass for all sites
    integrated_gradients   the same with G averaged over points on the line from clean to baseline: as decoders are
                           affine, features and error moving together move x on a line, so one gradient of the width of
                           the site serves all its units, and no dictionary is in the graph; the rest of the model is
                           replayed from the site on, all points in one batch
    exact                  m with the unit at its baseline, minus m; one replay a unit and token, batched

Effects are [example, pos, unit]. The gap of completeness compares their sum over a site with what the metric does when
the whole site goes to the baseline. Knows nothing of edges.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.measure import Measure, metric_of
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import State, repeated, resumed
from whence.engine.circuits.units import Said, places_of, turns
from whence.model.calls import Calls
from whence.model.linear import accumulation_dtype

Rule = Literal["midpoint", "left"]
Method = Literal["gradient", "integrated_gradients", "exact"]
Deltas = dict[CircuitSite, Said]
Told = Callable[[CircuitSite, int, int], None]


@dataclass(frozen=True, eq=False)
class Asked:
    """A batch with what is asked of it."""

    network: Network
    clean: State
    delta: Deltas  # baseline minus clean, of what the units say
    measure: Measure
    example: Int[Tensor, " example"]  # numbers of the batch's examples in the whole set

    def metric(self, calls: Calls, final: Tensor) -> Float[Tensor, " n"]:
        """The metric of final streams: the batch's, once or several times over."""
        example = self.example.repeat(len(final) // len(self.example))
        return metric_of(self.network, self.measure, calls, final, example)

    def moved(self, site: CircuitSite) -> Tensor:
        """What a whole site's difference writes."""
        return site.units.written(self.delta[site])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(accumulation_dtype(tensor.dtype))


@torch.enable_grad()
def gradients(asked: Asked) -> tuple[dict[CircuitSite, Tensor], Tensor]:
    """dm/dx of every site at the clean point, and of the final stream."""
    kept: dict[CircuitSite, Tensor] = {}

    def keep(site: CircuitSite, value: Tensor, read: Tensor) -> Tensor:
        kept[site] = value.clone()
        return kept[site]

    calls = asked.clean.calls
    start = calls.embedded.detach().requires_grad_()
    final = asked.network.run(calls, start, edit=keep)
    found = torch.autograd.grad(asked.metric(calls, final).sum(), [*kept.values(), final])
    return dict(zip(kept, map(_wide, found[:-1]), strict=True)), _wide(found[-1])


def integrated(asked: Asked, steps: int, rule: Rule) -> dict[CircuitSite, Tensor]:
    """The mean gradient of each site between its clean vector and the baseline's."""
    again = asked.network.calls(repeated(asked.clean.calls.batch, steps))
    at = points(steps, rule)
    return {site: _along(asked, again, site, at) for site in asked.network.sites}


@torch.enable_grad()
def _along(asked: Asked, again: Calls, site: CircuitSite, at: Tensor) -> Tensor:
    x = asked.clean.own[site]
    line = x + at.to(x).view(-1, 1, 1, 1) * asked.moved(site).to(x)
    line = line.flatten(0, 1).detach().requires_grad_()
    final = resumed(asked.network, again, asked.clean, site, line)
    (gradient,) = torch.autograd.grad(asked.metric(again, final).sum(), line)
    return _wide(gradient).unflatten(0, (len(at), -1)).mean(0)


def points(steps: int, rule: Rule) -> Float[Tensor, " step"]:
    """Where on the line from clean (0) to baseline (1) the gradient is taken; all weigh the same.

    Example:
        >>> points(2, "midpoint")
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    return (torch.arange(steps, dtype=torch.float64) + (0.5 if rule == "midpoint" else 0.0)) / steps


@torch.no_grad()
def exact(asked: Asked, rows: int, progress: Told) -> dict[CircuitSite, Tensor]:
    """Each unit's effect by patching it alone; `rows` replays of the batch at once."""
    again = asked.network.calls(repeated(asked.clean.calls.batch, rows))
    clean = asked.metric(asked.clean.calls, asked.clean.final)
    return {site: _patched(asked, again, site, clean, rows, progress) for site in asked.network.sites}


def _patched(asked: Asked, again: Calls, site: CircuitSite, clean: Tensor, rows: int, progress: Told) -> Tensor:
    """[example, pos, unit]: in each replay, one unit at one token of every example goes to the baseline."""
    x, units, delta = asked.clean.own[site], site.units, asked.delta[site]
    mask = asked.clean.calls.batch.mask
    every = torch.arange(units.count, device=x.device)
    places = places_of(units.moved(delta, every) & mask[..., None], every)
    effects = torch.zeros(*x.shape[:2], units.count, dtype=_wide(x).dtype, device=x.device)
    turn = turns(places.example, len(x))
    last = int(turn.max()) + 1 if len(turn) else 0
    for start in range(0, last, rows):
        now = places.where((turn >= start) & (turn < start + rows))
        line = x.repeat(rows, 1, 1)
        lines = (turn[(turn >= start) & (turn < start + rows)] - start) * len(x) + now.example
        line[lines, now.position] += units.tangents(delta, now).to(line)
        moved = asked.metric(again, resumed(asked.network, again, asked.clean, site, line))
        effects[now.example, now.position, now.unit] = (moved[lines] - clean[now.example]).to(effects)
        progress(site, min(start + rows, last), last)
    return effects


@torch.no_grad()
def final_at_baseline(asked: Asked, sites: Iterable[CircuitSite]) -> Float[Tensor, "example pos d_model"]:
    """The final stream when these sites go to the baseline together; what has no baseline follows them."""
    calls, own = asked.clean.calls, asked.clean.own
    away = {site: own[site] + asked.moved(site).to(own[site]) for site in sites}
    return asked.network.run(calls, calls.embedded, held=away)


@torch.no_grad()
def at_baseline(asked: Asked, sites: Iterable[CircuitSite]) -> Float[Tensor, " example"]:
    """What the metric does then."""
    calls, final = asked.clean.calls, final_at_baseline(asked, sites)
    return asked.metric(calls, final) - asked.metric(calls, asked.clean.final)


@torch.no_grad()
def whole_site(asked: Asked) -> dict[CircuitSite, Float[Tensor, " example"]]:
    """What the metric does when all of a site goes to the baseline."""
    calls, state = asked.clean.calls, asked.clean
    clean = asked.metric(calls, state.final)

    def moved(site: CircuitSite) -> Tensor:
        value = state.own[site] + asked.moved(site).to(state.own[site])
        return asked.metric(calls, resumed(asked.network, calls, state, site, value)) - clean

    return {site: moved(site) for site in asked.network.sites}


@torch.no_grad()
def contracted(asked: Asked, gradient: dict[CircuitSite, Tensor]) -> dict[CircuitSite, Tensor]:
    """Effects to first order: gradient times difference."""
    return {site: site.units.effects(gradient[site], asked.delta[site]) for site in asked.network.sites}
