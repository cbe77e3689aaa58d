"""Which attentions have closed forms, found by measuring each that has a decomposed matrix; the others are pulled.

Cost: three forward passes of a few tokens and one of as many rows as a head has channels. See `rotations.py`.
"""

import logging
from dataclasses import replace

import torch
from torch import Tensor, nn

from whence.engine.dataset.kernels import Wired
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.rotations import Compared, compared, measured
from whence.engine.dataset.sites import Inside
from whence.model.batch import Batch
from whence.model.hooks import After, hooked, main_output
from whence.model.matrices import matrices
from whence.model.sublayers import Sublayer

log = logging.getLogger(__name__)


def with_attention(wired: Wired, batch: Batch, length: int) -> Wired:
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
