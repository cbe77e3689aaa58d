"""A run's sites wired up: routes from the architecture, attentions measured, both held against the model's gradients.

On a few tokens every target site is pulled once with random weights through the cut model. A source that the routes say
is reached has a gradient and none other has; every closed form's block, summed with the same weights, is that gradient
times what the source says. An attention or MLP that is no such form (a norm on queries, a cap, a sink) is pulled instead;
anything else is refused. Cost: four forward passes of a few tokens and a backward pass a target site, once a run.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from whence.engine.dataset.blocks import Heard, Pair, Window, weights_of
from whence.engine.dataset.choosing import Chosen, Given, sites_of
from whence.engine.dataset.kernels import Kernels, Options, Wired
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.rotations import Compared, compared, measured
from whence.engine.dataset.routes import Route, Routes
from whence.engine.dataset.sites import Inside
from whence.engine.dataset.weighing import Weighed
from whence.errors import UnsupportedModelError
from whence.model.batch import Batch
from whence.model.model import Model
from whence.model.selfcheck import BOUND, few_tokens
from whence.model.sublayers import Sublayer

log = logging.getLogger(__name__)
_AGREES = 2e-3  # of the largest of a target site's sums: closed form beside gradient, in float32


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
    wired = _measured(wired, batch, max(length, batch.ids.shape[1]))
    return _borne_out(wired, batch)


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


# ---------------------------------------------------------------- attention
def _measured(wired: Wired, batch: Batch, length: int) -> Wired:
    """With how each attention compares; those that do otherwise are pulled."""
    compares = _compares(wired, batch, length)
    routes = dict(wired.routes)
    for pair, route in routes.items():
        where = wired.readings[pair[0]].where
        if route == "scores" and isinstance(where, Inside) and where.sublayer not in compares:
            routes[pair] = "backward"
    values = _values_fit(wired, batch)
    for pair, route in routes.items():
        where = wired.readings[pair[0]].where
        if route == "values" and isinstance(where, Inside) and where.sublayer not in values:
            routes[pair] = "backward"
    return replace(wired, routes=routes, compared=compares)


def _parts(wired: Wired) -> dict[tuple[Sublayer, str], MatrixSite]:
    """Decomposed first maps of attentions, by sublayer and end."""
    found: dict[tuple[Sublayer, str], MatrixSite] = {}
    for site in wired.sites:
        if isinstance(site, MatrixSite) and isinstance(site.writes, Inside):
            found[site.writes.sublayer, site.writes.end] = site
    return found


def _compares(wired: Wired, batch: Batch, length: int) -> dict[Sublayer, Compared]:
    """How each attention compares whose queries or keys are decomposed."""
    from whence.model.matrices import matrices

    named = matrices(wired.layout)
    subs = {sub for (sub, end) in _parts(wired) if end in ("q", "k")}
    maps = {
        sub: (named[f"{sub.layer}.attn.q"].module, named[f"{sub.layer}.attn.k"].module)
        for sub in subs
        if f"{sub.layer}.attn.q" in named
    }
    if not maps or wired.layout.architecture.patterns is None:
        return {}
    try:
        rotations = measured(wired.layout, {sub.entrance: pair for sub, pair in maps.items()}, length, wired.dtype)
    except (RuntimeError, ValueError) as odd:  # maps that cannot be put out head by head
        log.info("attention is pulled, not computed in closed form: %s", odd)
        return {}
    outputs: dict[nn.Module, Tensor] = {}
    passed = _with_outputs(wired, batch, [module for pair in maps.values() for module in pair], outputs)
    found: dict[Sublayer, Compared] = {}
    for sub, (query, key) in maps.items():
        one = passed.attended.get(sub.entrance)
        if one is None or sub.entrance not in rotations:
            continue
        how = compared(one, rotations[sub.entrance], outputs[query], outputs[key], batch.mask)
        if how is not None:
            found[sub] = how
    return found


def _with_outputs(wired: Wired, batch: Batch, modules: list[nn.Module], outputs: dict[nn.Module, Tensor]) -> Passed:
    """A recorded pass that also keeps what some modules put out."""
    from whence.model.hooks import After, hooked, main_output

    def keep(module: nn.Module) -> After:
        def hook(args: object, kwargs: object, output: object) -> None:
            outputs[module] = main_output(output).detach().to(wired.dtype)

        return hook

    with hooked([(module, keep(module)) for module in modules]):
        return passed_through(wired.layout, batch, wired.sites, wired.dtype)


def _values_fit(wired: Wired, batch: Batch) -> set[Sublayer]:
    """The attentions whose values are the outputs of their value map, group by group."""
    found: set[Sublayer] = set()
    parts = {sub: site for (sub, end), site in _parts(wired).items() if end == "v"}
    if not parts:
        return found
    outputs: dict[nn.Module, Tensor] = {}
    passed = _with_outputs(wired, batch, [site.map.module for site in parts.values()], outputs)
    for sub, site in parts.items():
        one = passed.attended.get(sub.entrance)
        if one is not None:
            own = outputs[site.map.module].unflatten(-1, (one.value.shape[1], -1)).transpose(1, 2)
            if own.shape == one.value.shape and torch.allclose(own, one.value, rtol=1e-4, atol=1e-5):
                found.add(sub)
    return found


# ---------------------------------------------------------------- gradients
def _borne_out(wired: Wired, batch: Batch) -> Wired:
    """The wiring with every route held against gradients.

    Raises:
        UnsupportedModelError: a route along the stream that they do not bear out, or one that is missing.
    """
    cut = passed_through(
        wired.layout,
        batch,
        wired.sites,
        wired.dtype,
        cutting=True,
        frozen=not wired.options.live,
        complete=not wired.options.spd,
    )
    said, scales = _said(wired, batch, cut)
    routes = dict(wired.routes)
    for target, gradients in said.items():
        for source, felt in gradients.items():
            route = routes.get((target, source))
            if route == "backward" and felt is None:
                del routes[target, source]
            elif route is None and felt is not None and float(felt.abs().max()) > _AGREES * scales[target]:
                raise UnsupportedModelError(
                    f"{source} reaches {target} in this model, and its family's entry says it cannot; see "
                    "docs/adding-a-model.md"
                )
    wired = replace(wired, routes=routes)
    return _compared_blocks(wired, batch, said, scales)


def _random_weights(wired: Wired, batch: Batch) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = batch.ids.numel()
    real = batch.mask.flatten()[:, None].cpu()
    return {
        name: (torch.randn(tokens, len(reading.ids), generator=generator) * real).to(wired.seen.device, wired.dtype)
        for name, reading in wired.readings.items()
    }


def _said(wired: Wired, batch: Batch, cut: Passed) -> tuple[dict[str, dict[str, Tensor | None]], dict[str, float]]:
    """Gradient times value of every source, summed over tokens, for each target site under random weights."""
    found: dict[str, dict[str, Tensor | None]] = {}
    scales: dict[str, float] = {}
    writings = list(wired.writings.values())
    told = Kernels(replace(wired, routes={})).as_seen(cut, _unweighted(batch, wired)).told
    for name, weight in _random_weights(wired, batch).items():
        value, leaves = cut.tape.values[name], [cut.tape.leaves[w.site] for w in writings]
        cotangent = weight.reshape(value.shape)
        if value.requires_grad:
            gradients = torch.autograd.grad(value, leaves, cotangent, retain_graph=True, allow_unused=True)
        else:
            gradients = [None] * len(leaves)
        own: dict[str, Tensor | None] = {}
        for writing, gradient in zip(writings, gradients, strict=True):
            if gradient is None:
                own[writing.site] = None
                continue
            product = gradient.flatten(0, 1) * told[writing.site].value
            own[writing.site] = (product if writing.kind == "units" else product.sum(-1)).sum(0).reshape(-1)
        found[name] = own
        largest = max((float(one.abs().max()) for one in own.values() if one is not None), default=0.0)
        # With live norms everything may cancel to nothing; then what cancels is the measure.
        scales[name] = max(largest, float((weight * value.detach().flatten(0, 1)).norm()) / 100)
    return found, scales


def _unweighted(batch: Batch, wired: Wired) -> Weighed:
    real = batch.mask.flatten()[:, None].to(wired.seen.device, wired.dtype)
    return Weighed({}, real, "none", 0.0)


def _compared_blocks(
    wired: Wired, batch: Batch, said: Mapping[str, Mapping[str, Tensor | None]], scales: Mapping[str, float]
) -> Wired:
    """Every closed form beside the gradients; what is inside a sublayer and differs is pulled from now on."""
    closed = {pair: route for pair, route in wired.routes.items() if route != "backward"}
    trial = replace(wired, routes=closed, options=replace(wired.options, metrics=("attr",)))
    kernels, window = Kernels(trial), Window()
    passed = passed_through(wired.layout, batch, wired.sites, wired.dtype, complete=not wired.options.spd)
    with torch.no_grad():
        counted = kernels.as_seen(passed, _unweighted(batch, wired))
        heard = {
            name: Heard(counted.heard[name].y, weights_of(("attr",), weight, counted.heard[name].y))
            for name, weight in _random_weights(wired, batch).items()
        }
        kernels.add(replace(counted, heard=heard), window)
        kernels.finish(window)
    routes, bound = dict(wired.routes), max(_AGREES, 4 * BOUND.get(wired.layout.hf.dtype, 0.0))
    for (target, source), route in closed.items():
        felt, block = said[target][source], window.sums[target, source]["attr"].sum(0)
        felt = torch.zeros_like(block) if felt is None else felt
        own = block.sum(0, keepdim=True) if felt.shape != block.shape else block
        gap = float((own - felt).abs().max())
        if gap <= bound * max(scales[target], 1e-30):
            continue
        if route == "stream":
            raise UnsupportedModelError(
                f"{source} -> {target}: the closed form is off by {gap:.1e} of {scales[target]:.1e} from the model's "
                "gradients, so its family's entry does not say how this model's stream is made; see docs/adding-a-model.md"
            )
        log.info("%s -> %s is pulled: its closed form is off by %.1e of %.1e", source, target, gap, scales[target])
        routes[target, source] = "backward"
    return replace(wired, routes=routes)
