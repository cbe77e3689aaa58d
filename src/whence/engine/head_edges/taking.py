"""One forward and one backward pass: the state that edges are taken at, and the metric's gradients there.

Some sites may be put elsewhere: then what comes behind them follows. Cost: as said, and the MLPs backwards once more,
for what each of them alone reads. Knows nothing of edges.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.network import CircuitSite, Values
from whence.engine.circuits.state import State
from whence.engine.head_edges.wiring import HeadWiring
from whence.model.calls import Calls
from whence.model.linear import accumulation_dtype


@dataclass(frozen=True, eq=False)
class Taken:
    """Where edges are taken: a state, and the metric's gradients there.

    Args:
        state: streams and sites' vectors.
        gradient: at every site.
        field: at the stream, through what an MLP reads of it.
        final: at the final stream.
    """

    state: State
    gradient: dict[CircuitSite, Float[Tensor, "example pos width"]]
    field: dict[CircuitSite, Float[Tensor, "example pos d_model"]]
    final: Float[Tensor, "example pos d_model"]


@torch.enable_grad()
def take(wiring: HeadWiring, calls: Calls, metric: Callable[[Tensor], Float[Tensor, " n"]], put: Values) -> Taken:
    """The state of a batch with the metric's gradients.

    Args:
        wiring: the network.
        calls: the batch's.
        metric: of the final stream, one number an example.
        put: vectors that some sites are put to.
    """
    found: dict[CircuitSite, Tensor] = {}
    kept: dict[CircuitSite, Tensor] = {}
    streams: dict[int, Tensor] = {}

    def keep(site: CircuitSite, value: Tensor, read: Tensor) -> Tensor:
        found[site] = value
        kept[site] = put[site].to(value).detach().requires_grad_() if site in put else value.clone()
        return kept[site]

    final = wiring.network.run(calls, calls.embedded.detach().requires_grad_(), edit=keep, keep=streams)
    *gradients, last = torch.autograd.grad(metric(final).sum(), [*kept.values(), final], retain_graph=True)
    gradient = dict(zip(kept, gradients, strict=True))
    field = {
        site: torch.autograd.grad(found[site], streams[site.point], gradient[site], retain_graph=True)[0]
        for site in kept
        if site.sublayer is not None and site not in wiring.reads
    }
    own = {site: value.detach() for site, value in kept.items()}
    said = {site: site.units.split(value, value) for site, value in own.items()}
    state = State(calls, {point: stream.detach() for point, stream in streams.items()}, own, said)
    return Taken(state, _wide(gradient), _wide(field), last.to(accumulation_dtype(last.dtype)))


def _wide(tensors: dict[CircuitSite, Tensor]) -> dict[CircuitSite, Tensor]:
    return {site: one.to(accumulation_dtype(one.dtype)) for site, one in tensors.items()}
