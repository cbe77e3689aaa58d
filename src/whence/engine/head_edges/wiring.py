"""A network whose sites are heads and MLPs, as a table of edges: a row for each target, a column for each source.

    rows      queries, keys and values of every head (or heads as one), MLPs, the metric
    columns   token embeddings, heads, MLPs or their neurons

in the order of the forward pass. Cost: one forward pass of a few tokens, to find out what makes which end of which
head. Knows nothing of states.
"""

from dataclasses import dataclass, field

from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.state import look
from whence.engine.head_edges.reads import HeadReads, head_reads
from whence.errors import UnsupportedModelError
from whence.model.batch import Batch


@dataclass(frozen=True, eq=False)
class HeadWiring:
    """A network of heads and MLPs, with a row for each target and a column for each source."""

    network: Network
    reads: dict[CircuitSite, HeadReads]
    by_input: bool
    rows: dict[CircuitSite | None, slice] = field(default_factory=dict[CircuitSite | None, slice])
    columns: dict[CircuitSite, slice] = field(default_factory=dict[CircuitSite, slice])

    def __post_init__(self) -> None:
        row = column = 0
        for site in self.network.sites:
            self.columns[site] = slice(column, column := column + site.units.count)
            if site.sublayer is not None:
                heads = self.reads[site].heads * (3 if self.by_input else 1) if site in self.reads else 1
                self.rows[site] = slice(row, row := row + heads)
        self.rows[None] = slice(row, row + 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Targets and sources."""
        return self.rows[None].stop, self.columns[self.network.sites[-1]].stop

    @property
    def crowded(self) -> tuple[CircuitSite, ...]:
        """Sites of so many units that their differences are not written out: neurons."""
        return tuple(s for s in self.network.sites if s not in self.reads and s.units.count > 1)

    def below(self, target: CircuitSite | None) -> tuple[CircuitSite, ...]:
        """The sites that a target reads."""
        end = self.network.end if target is None else target.point
        return tuple(one for one in self.network.sites if one.sublayer is None or one.point < end)


def head_wiring_of(network: Network, few: Batch, *, by_input: bool) -> HeadWiring:
    """Targets and sources of a network of heads and MLPs.

    Args:
        network: the model.
        few: some tokens to look at its attentions with.
        by_input: whether queries, keys and values of a head are targets of their own.

    Raises:
        UnsupportedModelError: other sublayers than attentions and MLPs, or attentions that do not show their patterns.
    """
    _refuse(network)
    state = look(network, network.calls(few))
    reads = {
        site: head_reads(network, site.sublayer, state, site.point)
        for site in network.sites
        if site.sublayer is not None and site.sublayer.kind == "attn"
    }
    return HeadWiring(network, reads, by_input)


def _refuse(network: Network) -> None:
    name = type(network.layout.hf).__name__
    sublayers = [sublayer for stage in network.stages for sublayer in stage]
    strange = [sublayer.key for sublayer in sublayers if sublayer not in network.at_sublayer]
    if strange:
        raise UnsupportedModelError(
            f"{name}: {', '.join(strange)} is neither attention nor MLP, and edges between heads and MLPs would go "
            "through it unseen; feature_circuit with these units counts such paths as part of an edge"
        )
    if network.layout.architecture.patterns is None:
        raise UnsupportedModelError(
            f"{name} does not show its attention patterns, so queries, keys and values have no edges of their own; "
            "feature_circuit with 'attn.head' has edges into whole heads"
        )
