"""The metric when only the edges of a circuit carry what this run says, and all others what a baseline says.

    a_d = what d says when each site before it is join(a_u where u -> d is an edge, the baseline where not)

site by site in forward order, every site on the way held; units that are not in the circuit say what the baseline says.
With every edge between kept nodes this is the ablation of nodes; with every edge of the model it is the model. Units
that listen to the same sources are one replay of the stretch below them, and replays of different ones run side by
side. Cost: a stretch for each different set of sources. Knows nothing of ratios.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.ablations.listening import EndSources, Group, Hearing, Sources
from whence.engine.ablations.nodes import Run
from whence.engine.circuits.network import CircuitSite, Network, Values
from whence.engine.circuits.routes import upstream
from whence.engine.circuits.state import repeated
from whence.engine.circuits.units import Said
from whence.errors import UnsupportedModelError
from whence.model.calls import Calls

AT_ONCE = 1 << 24  # numbers that the units of one site say in all replays side by side


@dataclass(frozen=True, eq=False)
class EdgeChoice:
    """Edges that are kept."""

    hearing: Hearing

    def final(self, run: Run) -> Float[Tensor, "example pos d_model"]:
        """The last stream with all other edges ablated."""
        return _EdgeRun(run, self.hearing).final()


class _EdgeRun:
    """One run: what the units of each site say, once their sources are known."""

    def __init__(self, run: Run, hearing: Hearing) -> None:
        self.run, self.hearing = run, hearing
        self.said: dict[CircuitSite, Said] = {}
        self.calls: dict[int, Calls] = {1: run.clean.calls}

    def final(self) -> Tensor:
        network = self.run.network
        for site in network.sites:
            self.said[site] = self._say(site)
        start, parents = upstream(network, None)
        held = {parent: self._heard(parent, [self.hearing.metric]) for parent in parents}
        return network.run(self.run.clean.calls, self.run.clean.calls.embedded, start, held=held)

    # ------------------------------------------------------------ one site
    def _say(self, site: CircuitSite) -> Said:
        """What its units say in this run."""
        if self.hearing.rules.alone(site):
            return self.run.clean.said[site]
        said = self.run.gone[site]
        start, parents = upstream(self.run.network, site)
        for some in self._side_by_side(site, parents):
            new = self._replayed(site, start, parents, [group.ends for group in some])
            for row, group in enumerate(some):
                kept = self.hearing.targets(site, group).to(self.run.slot.device)
                mine = Said(new.features[row], new.vectors[row])
                said = mine.mixed(said, site.units.mask(kept[self.run.slot]))
        return said

    def _side_by_side(self, site: CircuitSite, parents: list[CircuitSite]) -> Iterator[list[Group]]:
        """Groups of a kind, as many as memory allows."""
        groups, tokens = self.hearing.groups[site], self.run.slot.numel()
        widest = max(one.units.count for one in (site, *parents))
        for ends in sorted({len(group.ends) for group in groups}):
            alike = [group for group in groups if len(group.ends) == ends]
            rows = max(1, AT_ONCE // (ends * tokens * widest))
            yield from (alike[at : at + rows] for at in range(0, len(alike), rows))

    def _replayed(self, site: CircuitSite, start: int, parents: list[CircuitSite], wanted: list[EndSources]) -> Said:
        """What the units of a site say for each of several sets of sources: [set, example, pos, ...]."""
        clean, ends = self.run.clean, len(wanted[0])
        if not parents:
            said = clean.said[site]
            return Said(*(one.expand(len(wanted), *one.shape) for one in (said.features, said.vectors)))
        padded = wanted + wanted[-1:] * (_power_of_two(len(wanted)) - len(wanted))
        sources = [one for listens in padded for one in listens]
        held = {parent: self._heard(parent, sources) for parent in parents}
        with _ends_apart(self.run.network, site, ends, len(clean.calls.embedded)):
            found = self._arriving(site, start, held, self._calls(len(sources)))
        own, read = (one.unflatten(0, (len(padded), ends, -1))[: len(wanted), 0] for one in found)
        return site.units.split(own, read)

    def _heard(self, parent: CircuitSite, sources: Sequence[Sources]) -> Float[Tensor, "row pos width"]:
        """The vector of a site as each of several listeners hears it, one block of all examples after the other."""
        kept = torch.stack([self.hearing.sources(parent, one) for one in sources]).to(self.run.slot.device)
        mask = parent.units.mask(kept[:, self.run.slot])
        return parent.units.join(self.said[parent].mixed(self.run.gone[parent], mask)).flatten(0, 1)

    def _arriving(self, site: CircuitSite, start: int, held: Values, calls: Calls) -> tuple[Tensor, Tensor]:
        """The vector of a site, and what its features read, with the sites before it held."""
        network, seen = self.run.network, list[tuple[Tensor, Tensor]]()

        def see(one: CircuitSite, value: Tensor, read: Tensor) -> None:
            if one is site:
                seen.append((value, read))

        stream = network.run(calls, calls.embedded, start, site.point, held=held, edit=see)
        return seen[0] if site.sublayer is None else network.passed(calls, site, stream)

    def _calls(self, times: int) -> Calls:
        """The examples' calls, several times over."""
        if times not in self.calls:
            self.calls[times] = self.run.network.calls(repeated(self.run.clean.calls.batch, times))
        return self.calls[times]


def _power_of_two(count: int) -> int:
    """Not below a count: so that few different numbers of replays occur, each of which costs a forward pass."""
    return 1 << (count - 1).bit_length()


@contextmanager
def _ends_apart(network: Network, site: CircuitSite, ends: int, examples: int) -> Generator[None]:
    """While inside, of three blocks of examples the first gives queries, the second keys and the third values."""
    if ends == 1:
        yield
        return
    if network.layout.architecture.patterns is None:
        raise UnsupportedModelError(
            f"{site.key}: the attention of this family does not tell its queries, keys and values, so edges into them "
            "cannot be ablated; pass a circuit with edges into whole heads"
        )

    def mix(_: Tensor, key: Tensor, value: Tensor) -> None:
        for end, given in ((1, key), (2, value)):
            blocks = given.unflatten(0, (-1, ends, examples))
            blocks[:, 0] = blocks[:, end].clone()

    network.tape.on_given = mix
    try:
        yield
    finally:
        network.tape.on_given = None
