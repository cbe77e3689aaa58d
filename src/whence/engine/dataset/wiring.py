"""A run's sites wired up: routes from the architecture, attentions measured, both held against the model's gradients.

An attention or MLP that is no closed form (a norm on queries, a cap, a sink) is pulled instead, as the log says;
routes along the stream that gradients do not bear out are refused. Cost: that of `attention_found.py` and
`checking.py`, once a run.
"""

import logging
from dataclasses import replace

from torch import Tensor

from whence.engine.dataset.attention_found import with_attention
from whence.engine.dataset.blocks import Pair
from whence.engine.dataset.checking import borne_out
from whence.engine.dataset.choosing import Chosen, sites_of
from whence.engine.dataset.named import Given
from whence.engine.dataset.routes import Route, Routes
from whence.engine.dataset.wired import Options, Wired
from whence.model.model import Model
from whence.model.selfcheck import few_tokens

log = logging.getLogger(__name__)
_NAMED = 4  # pairs in the log's line


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
        {},
    )
    wired = replace(wired, routes=_routes(wired, chosen))
    batch = few_tokens(model.layout, model._embedded_tokens())
    wired = with_attention(wired, batch, max(length, batch.ids.shape[1]))
    wired = borne_out(wired, batch)
    _tell(wired)
    return wired


def _routes(wired: Wired, chosen: Chosen) -> dict[Pair, Route]:
    routes = Routes(chosen.sites, chosen.entries, chosen.gated, wired.options.live)
    found: dict[Pair, Route] = {}
    for target in wired.readings.values():
        for source in wired.writings.values():
            route = routes.of(target, source)
            if route == "stream" and target.V is None:
                route = "backward"
            if route is not None:
                found[target.site, source.site] = route
    return found


def _tell(wired: Wired) -> None:
    """Say what is pulled: by position, for squares, it is most of a run's work."""
    pulled = wired.pulled
    if not pulled:
        return
    named = ", ".join(f"{source} -> {target}" for target, source in pulled[:_NAMED])
    more = f" and {len(pulled) - _NAMED} more" if len(pulled) > _NAMED else ""
    said = f"{len(pulled)} of {len(wired.routes)} pairs of sites have no closed form and are pulled: {named}{more}"
    if not any("mean_squared_attr" in wired.metrics_of(wired.readings[target]) for target, _ in pulled):
        log.info("%s; one backward pass a target unit, batch and metric", said)
        return
    log.warning(
        "%s; mean_squared_attr takes a backward pass for each target unit at each position. Leave it out of metrics=, "
        "or pull only the targets that count, with weighting='target' or 'both'",
        said,
    )
