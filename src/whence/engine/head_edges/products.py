"""Direct edges from token embeddings, heads and MLPs to queries, keys and values of heads, MLPs and the metric.

    w(u -> v) = sum over tokens of  dm/d(what v alone reads) · (what u's difference is in the stream)

for every u before v; the norm that v reads through is live. Everything between u and v stands where it is: what is held
is not followed, so nothing is subtracted. Covectors at the ends are kept in head space; rows of the width of the stream
are made for one block of tokens at a time and meet in one product a target site.

Cost: every attention forward and its maps backward once, and targets x sources products of the stream's width a token.
Memory: `AT_ONCE` numbers for a block, 3 d_head a head and token, and the table of edges. Knows nothing of paths.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.meeting import seen
from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.pulling import pushed
from whence.engine.head_edges.reads import End, at_ends
from whence.engine.head_edges.taking import Taken
from whence.engine.head_edges.wiring import HeadWiring
from whence.engine.head_edges.writes import Block, Writes

AT_ONCE = 1 << 24  # numbers in one block of rows


@torch.no_grad()
def head_edges(
    wiring: HeadWiring, taken: Taken, delta: dict[CircuitSite, Tensor], *, by_example: bool
) -> Float[Tensor, "table target source"]:
    """The edges out of the sites that differ.

    Args:
        wiring: targets and sources.
        taken: where.
        delta: of the sites whose edges are asked for, baseline minus clean, [example, pos, width].
        by_example: whether examples are told apart; else one table is their sum.
    """
    return _Edges(wiring, taken, delta, by_example).all()


@torch.no_grad()
def neuron_reach(wiring: HeadWiring, taken: Taken, delta: dict[CircuitSite, Tensor]) -> Float[Tensor, " neuron"]:
    """What the differences of these sites do through each neuron that reads them directly, summed over examples.

    The edges into an MLP, neuron by neuron of it: their sum over neurons is the sum of its edges over sources.

    Args:
        wiring: targets and sources; neurons of sites that are crowded, in the order of the forward pass.
        taken: where.
        delta: of some sites.
    """
    state, network = taken.state, wiring.network
    if not wiring.crowded:
        return taken.final.new_zeros(0)
    steps = {site: Writes(site, state, delta[site]).step() for site in delta}
    found: list[Tensor] = []
    for target in wiring.crowded:
        step = sum((steps[site] for site in wiring.below(target) if site in steps), torch.zeros_like(taken.final))
        through = pushed(lambda x, at=target: network.passed(state.calls, at, x)[0], state.streams[target.point], step)
        found.append((through * taken.gradient[target]).sum((0, 1)))
    return torch.cat(found)


class _Edges:
    def __init__(self, wiring: HeadWiring, taken: Taken, delta: dict[CircuitSite, Tensor], by_example: bool) -> None:
        self.wiring, self.taken, self.by_example = wiring, taken, by_example
        self.writes = {site: Writes(site, taken.state, delta[site]) for site in wiring.network.sites if site in delta}
        self.covectors = {site: self._arriving(site) for site in wiring.rows if self._sources(site)}
        count = len(taken.final) if by_example else 1
        self.table = taken.final.new_zeros(count, *wiring.shape)

    def all(self) -> Tensor:
        for block in self._blocks():
            written = {s: one.spread(block) for s, one in self.writes.items() if s not in self.wiring.crowded}
            sources = torch.cat([*written.values()], 1).flatten(2).to(self.table) if written else None
            columns = _numbers([self.wiring.columns[site] for site in written], self.table.device)
            for site in self.covectors:
                self._into(site, block, sources, columns)
        return self.table

    def _sources(self, target: CircuitSite | None) -> list[CircuitSite]:
        return [site for site in self.wiring.below(target) if site in self.writes]

    # ------------------------------------------------------------ covectors
    def _arriving(self, target: CircuitSite | None) -> Tensor | dict[End, list[Tensor]]:
        """What reads the stream: a field of it, or covectors at the maps of an attention."""
        wiring, taken = self.wiring, self.taken
        if target is None:
            return taken.final
        if target not in wiring.reads:
            return taken.field[target]
        sublayer, stream = target.sublayer, taken.state.streams[target.point]
        assert sublayer is not None
        reads = wiring.reads[target]
        what = seen(wiring.network, sublayer, taken.state, target.point, reads.scaling)
        given, ends = sublayer.given(stream), at_ends(what, taken.gradient[target])
        return reads.back(wiring.network, taken.state.calls, given, ends)

    def _at_stream(self, target: CircuitSite | None, block: Block) -> Float[Tensor, "n target s d_model"]:
        """The covectors of a target's rows, in the stream."""
        found = self.covectors[target]
        if target is None or isinstance(found, Tensor):
            assert isinstance(found, Tensor)
            return block.of(found)[:, None]
        pieces, d_model = self.wiring.reads[target].pieces, self.taken.final.shape[-1]
        given: list[Tensor] = []
        for end in sorted(found):
            parts = zip(pieces[end], found[end], strict=True)
            given.append(torch.stack([piece.back(block.of(one), d_model) for piece, one in parts]).sum(0))
        stacked = torch.stack(given, 1)
        if not self.wiring.by_input:
            stacked = stacked.unflatten(1, (3, -1)).sum(1)
        return self._through_norm(target, stacked, block)

    @torch.enable_grad()
    def _through_norm(self, target: CircuitSite, covector: Tensor, block: Block) -> Tensor:
        sublayer = target.sublayer
        assert sublayer is not None
        stream = block.of(self.taken.state.streams[target.point])[:, None].expand(covector.shape)
        stream = stream.detach().requires_grad_()
        given = sublayer.given(stream)
        return torch.autograd.grad(given, stream, covector.to(given))[0].to(covector)

    # ------------------------------------------------------------ products
    def _into(self, target: CircuitSite | None, block: Block, sources: Tensor | None, columns: Tensor) -> None:
        below, rows = self._sources(target), self.wiring.rows[target]
        whole = sum(site.units.count for site in below if site not in self.wiring.crowded)
        covector = self._at_stream(target, block)
        if sources is not None and whole:
            self._add(block, rows, columns[:whole], covector.flatten(2) @ sources[:, :whole].mT)
        for site in below:
            if site in self.wiring.crowded:
                numbers = _numbers([self.wiring.columns[site]], columns.device)
                self._add(block, rows, numbers, self.writes[site].met(covector, block))

    def _add(self, block: Block, rows: slice, columns: Tensor, products: Tensor) -> None:
        if self.by_example:
            self.table[block.examples, rows, columns] += products
        else:
            self.table[0, rows, columns] += products.sum(0)

    def _blocks(self) -> Iterator[Block]:
        examples, length, width = self.taken.final.shape
        most = max(rows.stop - rows.start for rows in self.wiring.rows.values()) * 2
        units = sum(site.units.count for site in self.writes if site not in self.wiring.crowded)
        crowd = max((site.units.width for site in self.wiring.crowded), default=0)
        tokens = max(1, AT_ONCE // max(most * max(width, crowd), units * width))
        some, long = max(1, tokens // length), min(tokens, length)
        for first in range(0, examples, some):
            for start in range(0, length, long):
                yield Block(slice(first, first + some), slice(start, start + long))


def _numbers(slices: list[slice], device: torch.device) -> Int[Tensor, " n"]:
    every = [torch.arange(one.start, one.stop, device=device) for one in slices]
    return torch.cat(every) if every else torch.zeros(0, dtype=torch.long, device=device)
