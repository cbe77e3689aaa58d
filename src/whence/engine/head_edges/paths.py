"""Edges among heads and MLPs of some examples, with the metric's gradient taken at the clean point or along a path.

    gradient                at the clean point
    path "inputs"           averaged over points on the line between clean and baseline token embeddings, everything
                            behind them as it follows
    path "activations"      out of each site, averaged over points on the line of that site's own vector

In each case the edges out of a unit sum to its effect by that gradient. Averaged, the edges out of a site sum to what
the metric does when the site goes to the baseline, up to the error of the sum: of token embeddings ("inputs"), of every
site ("activations"). Both sums are reported. Cost: one forward and one backward pass a point, all points in one batch;
"activations" once a site. Knows nothing of results.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.baseline import Baseline
from whence.engine.circuits.effects import Asked, Rule, final_at_baseline, points, whole_site
from whence.engine.circuits.examples import Part
from whence.engine.circuits.measure import Measure, metric_of
from whence.engine.circuits.network import CircuitSite, Values
from whence.engine.circuits.state import repeated
from whence.engine.head_edges.products import head_edges, neuron_reach
from whence.engine.head_edges.taking import Taken, take
from whence.engine.head_edges.wiring import HeadWiring
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.model.calls import Calls

Path = Literal["inputs", "activations"]


@dataclass(frozen=True)
class Route:
    """Where the gradient is taken; without a path at the clean point."""

    path: Path | None
    steps: int
    rule: Rule

    def recorded(self) -> dict[str, Any]:
        """What a result says of it."""
        along = self.path is not None
        return {"path": self.path, "steps": self.steps if along else None, "rule": self.rule if along else None}


@dataclass(frozen=True, eq=False)
class PartEdges:
    """The edges of some examples, and what they are to be compared with."""

    table: Float[Tensor, "table target source"]  # one an example, or their sum
    reach: Float[Tensor, " neuron"]  # what reaches each neuron, summed over examples; empty where MLPs are whole
    total: Float[Tensor, " example"]  # what the metric does when everything goes to the baseline
    change: dict[CircuitSite, Float[Tensor, " example"]]  # ... when one site does
    missed: float  # share of the effects by gradient that the edges out of units do not sum to
    slopes: tuple[float, float]  # size of the metric's gradient by the final stream, clean and at the baseline

    def cpu(self) -> "PartEdges":
        """The same away from the accelerator."""
        change = {site: one.cpu() for site, one in self.change.items()}
        return PartEdges(self.table.cpu(), self.reach.cpu(), self.total.cpu(), change, self.missed, self.slopes)


@dataclass(frozen=True, eq=False)
class EdgeRun:
    """What is asked of every part of the examples."""

    wiring: HeadWiring
    measure: Measure
    baseline: Baseline
    route: Route

    @property
    def by_example(self) -> bool:
        """Whether examples are told apart: not where there is a column for every neuron."""
        return not self.wiring.crowded

    @torch.no_grad()
    def of(self, part: Part) -> PartEdges:
        """The edges of some examples.

        Raises:
            LedgerError: edges out of units do not sum to the units' effects.
        """
        network = self.wiring.network
        calls = network.calls(part.clean)
        clean = self._taken(calls, part, {})
        network.check(calls, network.logits(calls, clean.state.final))
        asked = Asked(network, clean.state, self.baseline.delta(network, part, clean.state), self.measure, part.example)
        table, reach, missed = self._summed(clean, {site: asked.moved(site) for site in network.sites}, part)
        moved = final_at_baseline(asked, network.sites)
        total = asked.metric(calls, moved) - asked.metric(calls, clean.state.final)
        slopes = float(clean.final.norm()), float(_slope(asked, moved).norm())
        return PartEdges(table, reach, total, self._changes(asked), missed, slopes)

    # ------------------------------------------------------------ where the gradient is taken
    def _summed(self, clean: Taken, delta: Values, part: Part) -> tuple[Tensor, Tensor, float]:
        """Edges, what reaches neurons, and what edges miss, of all batches that edges are taken in."""
        ways = self._ways(clean, delta, part)
        table, reach, missed = self._along(*next(ways))
        for taken, some in ways:
            more, reached, worse = self._along(taken, some)
            table, reach, missed = table + more, reach + reached, max(missed, worse)
        return table, reach, missed

    def _ways(self, clean: Taken, delta: Values, part: Part) -> Iterator[tuple[Taken, Values]]:
        """Where edges are taken, all points in one batch, and the differences of the sites whose edges are."""
        network, route = self.wiring.network, self.route
        if route.path is None:
            yield clean, delta
            return
        calls = network.calls(repeated(part.clean, route.steps))
        at = points(route.steps, route.rule).to(clean.final).repeat_interleave(len(clean.final))[:, None, None]
        again = {site: one.repeat(route.steps, 1, 1) for site, one in delta.items()}
        line = {site: clean.state.own[site].repeat(route.steps, 1, 1) + at * again[site] for site in network.sites}
        if route.path == "inputs":
            first = network.sites[0]
            yield self._taken(calls, part, {first: line[first]}), again
            return
        for site in network.sites:
            yield self._taken(calls, part, {site: line[site]}), {site: again[site]}

    def _taken(self, calls: Calls, part: Part, put: Values) -> Taken:
        return take(self.wiring, calls, lambda final: self._metric(calls, final, part), put)

    # ------------------------------------------------------------ edges there
    def _along(self, taken: Taken, delta: Values) -> tuple[Tensor, Tensor, float]:
        """Edges and what reaches neurons, averaged over points; and what edges miss of effects."""
        wide = {site: one.to(taken.final) for site, one in delta.items()}
        table = head_edges(self.wiring, taken, wide, by_example=self.by_example)
        reach = neuron_reach(self.wiring, taken, wide)
        missed = self._missed(table, taken, wide)
        steps = 1 if self.route.path is None else self.route.steps
        if not self.by_example:
            return table / steps, reach / steps, missed
        return table.unflatten(0, (steps, -1)).mean(0), reach / steps, missed

    def _missed(self, table: Tensor, taken: Taken, delta: Values) -> float:
        """By how much edges out of units miss their effects, as a share of the edges' size."""
        gap: list[Tensor] = []
        size: list[Tensor] = []
        for site, one in delta.items():
            columns = table[..., self.wiring.columns[site]]
            effects = site.units.effects(taken.gradient[site], site.units.split(one, one)).sum(1)
            effects = effects if self.by_example else effects.sum(0, keepdim=True)
            gap.append((columns.sum(1) - effects).flatten())
            size.append(columns.abs().sum(1).flatten())
        missed, all_of_it = (torch.cat(one).double().norm() for one in (gap, size))
        refuse_gap(missed, all_of_it, tolerance_of(self.wiring.network.layout.hf.dtype))
        return float(missed / all_of_it.clamp_min(1e-30))

    # ------------------------------------------------------------ what they are compared with
    def _changes(self, asked: Asked) -> dict[CircuitSite, Tensor]:
        """What the metric does when one site goes to the baseline: of the sites whose edges are to sum to it."""
        if self.route.path is None:
            return {}
        if self.route.path == "activations":
            return whole_site(asked)
        calls, first = asked.clean.calls, asked.network.sites[0]
        moved = asked.network.run(calls, calls.embedded + asked.moved(first).to(calls.embedded))
        return {first: asked.metric(calls, moved) - asked.metric(calls, asked.clean.final)}

    def _metric(self, calls: Calls, final: Tensor, part: Part) -> Float[Tensor, " n"]:
        example = part.example.repeat(len(final) // len(part.example))
        return metric_of(self.wiring.network, self.measure, calls, final, example)


@torch.enable_grad()
def _slope(asked: Asked, final: Tensor) -> Tensor:
    """The metric's gradient by a final stream."""
    final = final.detach().requires_grad_()
    return torch.autograd.grad(asked.metric(asked.clean.calls, final).sum(), final)[0]
