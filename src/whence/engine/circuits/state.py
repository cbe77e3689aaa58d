"""What a network says on a batch: streams, sites' vectors, and what their units say.

With `held_at`, every site is put to a vector of its own, and what arrives there is what its parents make of it: all
intermediate outputs held at once, which is what a direct edge is about. Cost: one forward pass, two products with every
dictionary. Knows nothing of metrics.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.network import CircuitSite, Network, Values
from whence.engine.circuits.units import Said
from whence.model.batch import Batch
from whence.model.calls import Calls


@dataclass(frozen=True, eq=False)
class State:
    """One forward pass, as a circuit sees it."""

    calls: Calls
    streams: dict[int, Float[Tensor, "example pos d_model"]]  # at every point, sites put to where they are held
    own: dict[CircuitSite, Float[Tensor, "example pos width"]]  # each site's vector, where it is held
    said: dict[CircuitSite, Said]  # by the units, of what arrived there

    @property
    def final(self) -> Tensor:
        """The stream that the final norm reads."""
        return self.streams[max(self.streams)]


@torch.no_grad()
def look(network: Network, calls: Calls, held_at: Values | None = None) -> State:
    """The state of a batch.

    Args:
        network: the model and its sites.
        calls: the batch's.
        held_at: vectors to put the sites to; None leaves them.
    """
    own: dict[CircuitSite, Tensor] = {}
    said: dict[CircuitSite, Said] = {}
    streams: dict[int, Tensor] = {}

    def see(site: CircuitSite, value: Tensor, read: Tensor) -> Tensor | None:
        own[site] = value if held_at is None else held_at[site].to(value)
        said[site] = site.units.split(value, read)
        return None if held_at is None else own[site]

    network.run(calls, calls.embedded, edit=see, keep=streams)
    return State(calls, streams, own, said)


def repeated(batch: Batch, times: int) -> Batch:
    """The same prompts several times, one block of all after the other."""
    return Batch(batch.ids.repeat(times, 1), batch.lengths.repeat(times))


def resumed(network: Network, calls: Calls, state: State, site: CircuitSite, value: Tensor) -> Tensor:
    """The final stream when one site says something else; what stands before it is not run.

    Args:
        network: the model and its sites.
        calls: of the batch, repeated as often as there are values for each example.
        state: the batch's own.
        site: which site.
        value: [times * example, pos, width].
    """
    times = len(value) // len(state.own[site])
    if site.sublayer is None:
        stream = value if not site.embedding or calls.position is None else value + calls.position
        return network.run(calls, stream.to(state.streams[site.point]), site.point)
    sublayer, own = site.sublayer, state.own[site]
    rest = state.streams[site.point + 1] - sublayer.tail(own, site.depth)
    # A site at the next point holds nothing here: its own value is not what the metric is asked about.
    return network.run(calls, rest.repeat(times, 1, 1) + sublayer.tail(value.to(own), site.depth), site.point + 1)
