"""A run's sites wired up: routes from the architecture, attentions measured, both held against the model's gradients.

An attention or MLP that is no closed form (a norm on queries, a cap, a sink) is pulled instead; routes along the stream
that gradients do not bear out are refused. Cost: that of `attention_found.py` and `checking.py`, once a run.
"""

from torch import Tensor

from whence.engine.dataset.attention_found import with_attention
from whence.engine.dataset.blocks import Pair
from whence.engine.dataset.checking import borne_out
from whence.engine.dataset.choosing import Chosen, sites_of
from whence.engine.dataset.kernels import Options, Wired
from whence.engine.dataset.named import Given
from whence.engine.dataset.routes import Route, Routes
from whence.model.model import Model
from whence.model.selfcheck import few_tokens


def wire(model: Model, given: Given, seen: Tensor, output_tokens: Tensor, options: Options, length: int) -> Wired:
    """The wiring of a run.

    Args:
        model: the model.
        given: what a user named.
        seen: token ids that occur in the data, ascending.
        output_tokens: tokens whose logits are targets.
        options: what is summed.
        length: of the longest row of the data.

    Raises:
        ValueError: components that do not fit the model, or one another.
        UnsupportedModelError: routes that the model's gradients do not bear out.
    """
    chosen = sites_of(model, given, seen, output_tokens)
    wired = Wired(
        model.layout,
        chosen.sites,
        given.parameters,
        seen.to(model.device),
        model.accumulation,
        options,
        _routes(chosen, options),
    )
    batch = few_tokens(model.layout, model._embedded_tokens())
    wired = with_attention(wired, batch, max(length, batch.ids.shape[1]))
    return borne_out(wired, batch)


def _routes(chosen: Chosen, options: Options) -> dict[Pair, Route]:
    routes = Routes(chosen.sites, chosen.entries, chosen.gated, options.live)
    found: dict[Pair, Route] = {}
    for target in (reading for site in chosen.sites for reading in site.readings):
        for source in (writing for site in chosen.sites for writing in site.writings):
            if options.spd and source.site.endswith(".delta"):
                continue
            route = routes.of(target, source)
            if route == "stream" and target.V is None:
                route = "backward"
            if route is not None:
                found[target.site, source.site] = route
    return found
