"""Direct edges between kept units: w(u -> d) = c_dᵀ J v_u, every site between them held where it is.

J is the Jacobian of the stretch of model between the two sites, norms and attention live. From each target the covector
goes down the stream until sites stop it:

    same point of the stream    J is the identity
    into an MLP                 token by token (`pulling`)
    into an attention           met at queries, keys and values (`meeting`)
    a sublayer without a site   pulled through, so that its paths belong to the edge

Nothing is subtracted: what is held is not followed. The metric's own covector starts at the final stream. Cost: rows of
targets and of sources, and the pairs that exist; it does not grow with the depth of the model. Knows nothing of
thresholds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.joins import Rows, Table, WideRows, join, join_wide, widened
from whence.engine.circuits.meeting import EndRows, ends, meet, seen
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.pulling import added, in_stream, pull_in_turns, pull_site, pull_tokens
from whence.engine.circuits.state import State
from whence.engine.circuits.units import Cotangents, Places, Said, places_of
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class Kept:
    """The units of a site that are nodes, and the number of the node that each is at each token; -1 for none."""

    unit: Int[Tensor, " k"]
    number: Int[Tensor, "example pos k"]
    nodes: int

    def places(self, chosen: Tensor) -> tuple[Places, Int[Tensor, " n"]]:
        """Lines of the chosen among them, and their nodes' numbers."""
        chosen = chosen & (self.number >= 0)
        return places_of(chosen, self.unit), self.number[chosen]


@dataclass(frozen=True, eq=False)
class Linear:
    """Where edges are taken, and of what."""

    network: Network
    state: State
    gradient: dict[CircuitSite, Float[Tensor, "example pos width"]]
    metric: Float[Tensor, "example pos d_model"]  # of the final stream
    delta: dict[CircuitSite, Said]
    kept: dict[CircuitSite, Kept]


AnyRows = Rows | WideRows
Tables = dict[tuple[CircuitSite | None, CircuitSite], Table]  # (target, None for the metric; source)


@torch.no_grad()
def direct_edges(linear: Linear) -> Tables:
    """Weights of all direct edges between kept units, by example, and those into the metric."""
    walk = EdgeWalk(linear)
    for target in (None, *linear.network.sites):
        walk.into(target)
    return walk.tables


class EdgeWalk:
    """From targets down to the sites whose units act on them."""

    def __init__(self, linear: Linear) -> None:
        self.linear, self.state, self.network = linear, linear.state, linear.network
        self.length = linear.metric.shape[1]
        self.sources = {site: self._source(site) for site in self.network.sites}
        self.tables: Tables = {}

    def _source(self, site: CircuitSite) -> Rows:
        """What the kept units' differences are in the stream behind the site."""
        kept, delta = self.linear.kept[site], self.linear.delta[site]
        at, node = kept.places(site.units.moved(delta, kept.unit))
        return Rows(at.example, at.position, node, in_stream(site, self.state, at, site.units.tangents(delta, at)))

    def _table(self, target: CircuitSite | None, source: CircuitSite) -> Table:
        key = target, source
        if key not in self.tables:
            targets = 1 if target is None else self.linear.kept[target].nodes
            examples = len(self.linear.metric)
            self.tables[key] = Table(examples, targets, self.linear.kept[source].nodes, self.linear.metric)
        return self.tables[key]

    # ------------------------------------------------------------ from a target down
    def into(self, target: CircuitSite | None) -> None:
        """Add the edges into a site's units, or into the metric."""
        if target is None:
            self._metric()
        else:
            self._into(target)

    def _metric(self) -> None:
        lengths = self.state.calls.batch.lengths
        example = torch.arange(len(lengths), device=lengths.device)
        metric = Rows(example, lengths - 1, torch.zeros_like(example), self.linear.metric[example, lengths - 1])
        self._arrive(None, metric, self.network.end)

    def _into(self, site: CircuitSite) -> None:
        kept, gate = self.linear.kept[site], site.units.gate(self.state.said[site])
        at, node = kept.places(site.units.open(gate, kept.unit))
        if not len(at) or (site.sublayer is None and not site.point):
            return
        covector = site.units.cotangents(self.linear.gradient[site], gate, at)
        if site.sublayer is None:
            assert covector.own is not None
            self._below(site, Rows(at.example, at.position, node, covector.own), site.point)
        elif site.sublayer.kind == "mlp" and self._alone(site.sublayer):
            pulled = pull_site(site, self.state, at, covector)
            self._arrive(site, Rows(at.example, at.position, node, pulled.to(self.linear.metric)), site.point)
        elif site.sublayer.kind == "attn" and self._meets(site.point):
            assert covector.own is not None
            what = seen(self.network, site.sublayer, self.state, site.point)
            self._meet(site, ends(site, what, at, node, covector.own))
        else:
            self._in_turns(site, at, node, covector)

    def _in_turns(self, site: CircuitSite, at: Places, node: Tensor, covector: Cotangents) -> None:
        """A target whose sublayer sees all tokens at once and does not tell how."""
        parts = [one for one in (covector.own, covector.read) if one is not None]

        def value(stream: Tensor) -> Tensor:
            own, read = self.network.passed(self.state.calls, site, stream)
            return own if len(parts) == 1 else torch.cat([own, read], -1)

        rows = Rows(at.example, at.position, node, torch.cat(parts, -1))
        wide = widened(rows, self.length)
        field = pull_in_turns(value, self.state.streams[site.point], at.example, lambda some: wide.field[some])
        self._arrive(site, WideRows(at.example, node, field.to(self.linear.metric)), site.point)

    def _arrive(self, target: CircuitSite | None, down: AnyRows, point: int) -> None:
        """At a point of the stream: a site there takes all of it."""
        site = self.network.at_point.get(point)
        if site is not None:
            self._join(target, down, site)
        else:
            self._below(target, down, point)

    def _below(self, target: CircuitSite | None, down: AnyRows, point: int) -> None:
        """From a point of the stream on down: to what the last stage added, and past it."""
        if not point:
            return
        live: list[Sublayer] = []
        for sublayer in self.network.stages[point - 1]:
            site = self.network.at_sublayer.get(sublayer)
            if site is None:
                live.append(sublayer)
            else:
                self._join(target, down, site)
        passing = down
        for sublayer in live:
            passing = self._through(sublayer, down, passing, point - 1)
        self._arrive(target, passing, point - 1)

    def _through(self, sublayer: Sublayer, down: AnyRows, passing: AnyRows, point: int) -> AnyRows:
        """What passes beside a sublayer, and what passes through it."""
        calls, stream = self.state.calls, self.state.streams[point]
        if isinstance(down, Rows) and isinstance(passing, Rows) and sublayer.kind == "mlp" and self._alone(sublayer):
            through = pull_tokens(sublayer, calls, stream[down.example, down.position], down.vector)
            return Rows(down.example, down.position, down.node, passing.vector + through.to(passing.vector))
        wide, beside = (one if isinstance(one, WideRows) else widened(one, self.length) for one in (down, passing))
        field = wide.field
        through = pull_in_turns(lambda x: added(sublayer, calls, x), stream, wide.example, lambda some: field[some])
        return beside.plus(through.to(beside.field))

    # ------------------------------------------------------------ meeting sources
    def _join(self, target: CircuitSite | None, down: AnyRows, source: CircuitSite) -> None:
        up = self.sources[source]
        table = self._table(target, source)
        if isinstance(down, Rows):
            join(down, up, self.length, table)
        else:
            join_wide(down, up, table)

    def _meet(self, target: CircuitSite, down: EndRows) -> None:
        sublayer, point = target.sublayer, target.point
        assert sublayer is not None
        for source in self._visible(point) or ():
            meet(self.network, sublayer, self.state, point, down, self.sources[source], self._table(target, source))

    def _visible(self, point: int) -> list[CircuitSite] | None:
        """The sites whose steps reach a point of the stream as they are; None if others pass through sublayers."""
        found: list[CircuitSite] = []
        while point not in self.network.at_point:
            if not point:
                return found
            point -= 1
            for sublayer in self.network.stages[point]:
                if sublayer not in self.network.at_sublayer:
                    return None
                found.append(self.network.at_sublayer[sublayer])
        return [*found, self.network.at_point[point]]

    def _meets(self, point: int) -> bool:
        """Whether an attention tells how it compares keys; a single token has nothing to compare."""
        return (
            self.length > 1
            and self.network.layout.architecture.patterns is not None
            and self._visible(point) is not None
        )

    def _alone(self, sublayer: Sublayer) -> bool:
        return self.state.calls.alone(sublayer.entrance)
