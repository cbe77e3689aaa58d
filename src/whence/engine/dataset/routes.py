"""Which sources reach which targets, and by which way: found from where they stand, before anything is run.

    stream      both in the stream, and every sublayer between them stands cut at what it writes
    values      from the values of an attention to what its output map reads
    scores      from its queries and keys
    pointwise   from gate or up to what the MLP's last map reads
    backward    reached, but through something live: vector-Jacobian products

None: not reached. `checking.py` holds this against the model's gradients. Knows nothing of numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from whence.engine.dataset.sites import Elsewhere, Inside, Reading, Site, StreamRead, StreamWrite, Writing
from whence.model.sublayers import Sublayer

Route = Literal["stream", "values", "scores", "pointwise", "backward"]
_SCORES = ("q", "k")


@dataclass(frozen=True, eq=False)
class Routes:
    """The ways of one set of sites.

    Args:
        sites: in the order of the forward pass.
        entries: when each sublayer of the model reads the stream.
        with_gate: the MLPs that have a gate.
        live: norms move.
    """

    sites: Sequence[Site]
    entries: Mapping[Sublayer, int]
    with_gate: frozenset[Sublayer]
    live: bool

    @cached_property
    def closed(self) -> frozenset[Sublayer]:
        """Sublayers whose whole write is a site's."""
        return frozenset(site.closes for site in self.sites if site.closes is not None)

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """When the stream is cut."""
        ends = [w.where for site in self.sites for w in site.writings if isinstance(w.where, StreamWrite)]
        return tuple({where.time - 1 for where in ends if where.cuts})

    @cached_property
    def ends(self) -> dict[Sublayer, set[str]]:
        """First maps of a sublayer that are cut."""
        found: dict[Sublayer, set[str]] = {}
        for site in self.sites:
            for writing in site.writings:
                if isinstance(writing.where, Inside):
                    found.setdefault(writing.where.sublayer, set()).add(writing.where.end)
        return found

    def entered(self, sublayer: Sublayer) -> bool:
        """Whether the stream gets into it past its cut first maps."""
        cut = self.ends.get(sublayer, set())
        if sublayer.kind == "attn":
            return not ({"qkv"} <= cut or {"q", "k", "v"} <= cut)
        return not ({"gate", "up"} if sublayer in self.with_gate else {"up"}) <= cut

    # ------------------------------------------------------------ pairs
    def of(self, target: Reading, source: Writing) -> Route | None:
        """The way from a source to a target."""
        if isinstance(source.where, Inside):
            return self._from_inside(target, source.where)
        if isinstance(target.where, StreamRead):
            return self._along(source.where, target.where.time)
        sublayer = target.where.sublayer
        time = self.entries[sublayer] if isinstance(target.where, Inside) else target.where.time
        way = self._along(source.where, time)
        return "backward" if way is not None and self.entered(sublayer) else None

    def _along(self, write: StreamWrite, time: int) -> Route | None:
        """Along the stream from a write to a read."""
        if write.time > time or any(write.time < cut < time for cut in self.cuts):
            return None
        between = [sub for sub, entry in self.entries.items() if write.time < entry and entry + 1 < time]
        if any(sub not in self.closed and self.entered(sub) for sub in between):
            return "backward"
        normed = write.sublayer is not None and write.sublayer.post_norm is not None and write.depth != "normed"
        return "backward" if self.live and normed else "stream"

    def _from_inside(self, target: Reading, where: Inside) -> Route | None:
        own, there = where.sublayer, target.where
        if isinstance(there, Inside) and there.sublayer is own:
            if own.kind == "mlp":
                return "pointwise"
            return "values" if where.end == "v" else "scores" if where.end in _SCORES else "backward"
        if isinstance(there, Elsewhere) and there.sublayer is own:
            return "backward"
        if own in self.closed or there is where:
            return None
        time = there.time if isinstance(there, StreamRead | Elsewhere) else self.entries[there.sublayer]
        out = StreamWrite(self.entries[own] + 1)
        reached = self._along(out, time) is not None
        if not isinstance(there, StreamRead):
            reached = reached and self.entered(there.sublayer)
        return "backward" if reached else None
