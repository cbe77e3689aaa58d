"""From examples to nodes and edges: effects of every unit, the units that are nodes, edges between them.

Two passes. The first finds effects, example by example, and keeps gradients (one vector of each site's width a token);
the second, once the nodes are known, runs the examples again and finds the edges between nodes alone. With edges by
integrated gradients the second pass stands at points on the line from clean to baseline, every site held there: then

    sum over sources of w(u -> d) = c_d · (what d's parents at their baselines make of d) - (at their clean values)

and a target whose gate is closed at the clean point has in-edges if it opens on the way. Cost: see `effects` and
`edges`. Knows nothing of results.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.baseline import Baseline
from whence.engine.circuits.edges import Kept, Linear, direct_edges
from whence.engine.circuits.effects import (
    Asked,
    Method,
    Rule,
    at_baseline,
    contracted,
    exact,
    gradients,
    integrated,
    points,
    whole_site,
)
from whence.engine.circuits.examples import Examples, Part
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.nodes import Chosen, Gathered, choose
from whence.engine.circuits.state import State, look
from whence.progress import Progress

REPLAYS = 64  # prompts run at once where units are patched one by one


@dataclass(frozen=True)
class Settings:
    """What is asked for."""

    method: Method
    steps: int
    rule: Rule
    node_threshold: float
    gate: Literal["aggregate", "per_example"]
    edge_gradient: Literal["gradient", "integrated_gradients"]
    batch_size: int


@dataclass(frozen=True, eq=False)
class Found:
    """What the first pass leaves of some examples."""

    part: Part
    asked: Asked | None  # None: to be run again
    gradient: dict[CircuitSite, Tensor]
    metric: Tensor
    passing: dict[CircuitSite, Tensor] | None  # where units exceed the threshold, if that is asked


@dataclass(frozen=True, eq=False)
class EdgeEntries:
    """Weights by example; nodes numbered through, the metric last."""

    example: Int[Tensor, " entry"]
    target: Int[Tensor, " entry"]
    source: Int[Tensor, " entry"]
    weight: Float[Tensor, " entry"]


@dataclass(eq=False)
class Discovery:
    """One run."""

    network: Network
    examples: Examples
    baseline: Baseline
    settings: Settings
    progress: Progress
    keep: bool = False  # hold what every unit says on all examples, rather than run them again
    total: list[Tensor] = field(default_factory=list[Tensor])  # effect of everything at its baseline, by example
    whole: dict[CircuitSite, Tensor] = field(default_factory=dict[CircuitSite, Tensor])  # ... of one whole site, summed
    closed: int = 0  # nodes that are features and whose gate is open nowhere at the clean point

    # ------------------------------------------------------------ first pass
    def effects(self) -> tuple[list[Gathered], list[Found]]:
        """Effects at every site, and what the second pass needs."""
        slots, count = self.examples.n_slots, len(self.examples)
        gathered = {site: Gathered(site, slots, count) for site in self.network.sites}
        found: list[Found] = []
        for part in self._parts("effects"):
            asked = self.asked(part)
            gradient, metric = gradients(asked)
            effect = self._effect(asked, gradient)
            for site, one in gathered.items():
                one.add(part, effect[site], self.settings.node_threshold)
            self._totals(asked)
            over = {site: effect[site].abs() > self.settings.node_threshold for site in gathered}
            passing = over if self.settings.gate == "per_example" else None
            kept = asked if self.keep or len(part.example) == count else None
            found.append(Found(part, kept, gradient, metric, passing))
        return list(gathered.values()), found

    def _effect(self, asked: Asked, gradient: dict[CircuitSite, Tensor]) -> dict[CircuitSite, Tensor]:
        """Effects by the method asked for; integrated gradients take the place of those at the clean point."""
        settings = self.settings
        if settings.method == "exact":
            times = max(1, REPLAYS // len(asked.example))
            return exact(asked, times, lambda site, done, of: self.progress(f"patching {site.key}", done, of))
        if settings.method == "integrated_gradients":
            gradient.update(integrated(asked, settings.steps, settings.rule))
        return contracted(asked, gradient)

    @torch.no_grad()
    def _totals(self, asked: Asked) -> None:
        """What the metric does when everything, or one whole site, goes to the baseline."""
        moving = [site for site in self.network.sites if self.baseline.moves(site)]
        self.total.append(at_baseline(asked, moving).double().cpu())
        for site, change in whole_site(asked).items():
            self.whole[site] = self.whole.get(site, torch.zeros(())) + change.double().sum().cpu()

    # ------------------------------------------------------------ second pass
    def nodes(self, gathered: list[Gathered]) -> list[Chosen]:
        """The units that are nodes."""
        return choose(gathered, self.settings.node_threshold, per_example=self.settings.gate == "per_example")

    def edges(self, gathered: list[Gathered], chosen: list[Chosen], found: list[Found]) -> EdgeEntries:
        """Edges between nodes, and from nodes into the metric, by example."""
        by_site = {one.site: one for one in chosen}
        seen = {one.site: torch.zeros(len(one), dtype=torch.bool) for one in chosen}
        parts = self._last(gathered, by_site)
        for done, one in enumerate(found):
            asked = one.asked or self.asked(one.part)
            kept = {
                site: nodes.kept(one.part.slot, None if one.passing is None else one.passing[site])
                for site, nodes in by_site.items()
            }
            self._see(asked.clean, kept, seen)
            parts += self._edges_of(asked, one, kept, by_site)
            self.progress("edges", done + 1, len(found))
        self.closed = sum(int((~one).sum()) for one in seen.values())
        return EdgeEntries(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _last(self, gathered: list[Gathered], by_site: dict[CircuitSite, Chosen]) -> list[tuple[Tensor, ...]]:
        """Edges from a site that is all the metric reads: all that its units do, they do there, so their effects."""
        site = self.network.at_point.get(self.network.end)
        if site is None:
            return []
        effects = next(one for one in gathered if one.site is site).entries()
        number = by_site[site].numbers(effects.slot, effects.unit)
        here = number >= 0
        metric = torch.full_like(number[here], sum(map(len, by_site.values())))
        return [(effects.example[here], metric, number[here] + by_site[site].first, effects.effect[here].double())]

    def _see(self, clean: State, kept: dict[CircuitSite, Kept], seen: dict[CircuitSite, Tensor]) -> None:
        """Note the nodes whose gates are open."""
        for site, nodes in kept.items():
            _, number = nodes.places(site.units.open(site.units.gate(clean.said[site]), nodes.unit))
            seen[site][number.cpu()] = True

    def _edges_of(
        self, asked: Asked, one: Found, kept: dict[CircuitSite, Kept], by_site: dict[CircuitSite, Chosen]
    ) -> list[tuple[Tensor, ...]]:
        metric = sum(map(len, by_site.values()))
        entries: list[tuple[Tensor, ...]] = []
        steps = 1 if self.settings.edge_gradient == "gradient" else self.settings.steps
        for state in self._states(asked):
            linear = Linear(self.network, state, one.gradient, one.metric, asked.delta, kept)
            for (target, source), table in direct_edges(linear).items():
                if target is None and source is self.network.at_point.get(self.network.end):
                    continue
                index, weight = table.entries()
                index = index.cpu()
                to = torch.full_like(index[1], metric) if target is None else index[1] + by_site[target].first
                example = one.part.example.cpu()[index[0]]
                entries.append((example, to, index[2] + by_site[source].first, weight.double().cpu() / steps))
        return entries

    def _states(self, asked: Asked) -> Iterator[State]:
        """Where edges are taken: at the clean point, or along the way to the baseline."""
        if self.settings.edge_gradient == "gradient":
            yield asked.clean
            return
        calls = asked.clean.calls
        for at in points(self.settings.steps, self.settings.rule).tolist():
            yield look(self.network, calls, {s: asked.clean.own[s] + at * asked.moved(s) for s in self.network.sites})

    # ------------------------------------------------------------ what is reported
    def all_totals(self) -> Float[Tensor, " example"]:
        """The metric with everything at its baseline, minus the clean metric, of every example."""
        return torch.cat(self.total)

    def completeness(self, gathered: list[Gathered]) -> dict[str, tuple[float, float]]:
        """For each site, the sum of its units' effects, and what the metric does when the whole site goes; means."""
        sums = {one.site: float(one.mean.sum()) for one in gathered}
        return {site.key: (sums[site], float(whole) / len(self.examples)) for site, whole in self.whole.items()}

    # ------------------------------------------------------------ both
    def asked(self, part: Part) -> Asked:
        """Some examples, run clean, with the way to their baseline."""
        clean = look(self.network, self.network.calls(part.clean))
        self.network.check(clean.calls, self.network.logits(clean.calls, clean.final))
        delta = self.baseline.delta(self.network, part, clean)
        return Asked(self.network, clean, delta, self.examples.measure, part.example)

    def _parts(self, stage: str) -> Iterator[Part]:
        count, done = len(self.examples), 0
        for part in self.examples.parts(self.settings.batch_size):
            yield part
            done += len(part.example)
            self.progress(stage, done, count)
