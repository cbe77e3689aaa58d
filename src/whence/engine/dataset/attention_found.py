"""Which attentions have closed forms, found by measuring each that has a decomposed matrix; the others are pulled.

Cost: four forward passes of a few tokens and one of as many rows as a head has channels. See `rotations.py`.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.rotations import TOLERANCE, Compared, compared, measured
from whence.engine.dataset.sites import Inside
from whence.engine.dataset.wired import Wired
from whence.model.batch import Batch
from whence.model.hooks import After, hooked
from whence.model.matrices import matrices
from whence.model.sublayers import Sublayer

log = logging.getLogger(__name__)
LOUD = 16.0  # scores so many times as large show a cap that a few quiet tokens do not


def with_attention(wired: Wired, batch: Batch, length: int) -> Wired:
    """With how each attention compares; those that do otherwise are pulled."""
    compares = _compares(wired, batch, length)
    fits = {"scores": compares, "values": _values_fit(wired, batch)}
    routes = dict(wired.routes)
    for pair, route in routes.items():
        where = wired.readings[pair[0]].where
        if route in fits and isinstance(where, Inside) and where.sublayer not in fits[route]:
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
    quiet, loud = (_heard(wired, batch, maps, rotations, factor) for factor in (1.0, LOUD))
    return {sub: how for sub, how in quiet.items() if sub in loud}


def _heard(
    wired: Wired,
    batch: Batch,
    maps: Mapping[Sublayer, tuple[nn.Module, nn.Module]],
    rotations: Mapping[nn.Module, tuple[Tensor, Tensor]],
    factor: float,
) -> dict[Sublayer, Compared]:
    """How attentions compare in a pass whose queries are so many times as large."""
    tolerance = TOLERANCE.get(wired.layout.hf.dtype, TOLERANCE[torch.bfloat16])
    outputs, queries = dict[nn.Module, Tensor](), {query: factor for query, _ in maps.values()}
    passed = _with_outputs(wired, batch, {key: 1.0 for _, key in maps.values()} | queries, outputs)
    found: dict[Sublayer, Compared] = {}
    for sub, (query, key) in maps.items():
        one = passed.attended.get(sub.entrance)
        if one is None or sub.entrance not in rotations:
            continue
        how = compared(one, rotations[sub.entrance], outputs[query], outputs[key], batch.mask, tolerance)
        if how is not None:
            found[sub] = how
    return found


def _with_outputs(
    wired: Wired, batch: Batch, modules: Mapping[nn.Module, float], outputs: dict[nn.Module, Tensor]
) -> Passed:
    """A recorded pass that also keeps what some modules put out, each made so many times as large."""

    def keep(module: nn.Module, factor: float) -> After:
        def hook(args: object, kwargs: object, output: Tensor) -> Tensor:
            outputs[module] = (factor * output).detach().to(wired.dtype)
            return factor * output

        return hook

    with hooked([(module, keep(module, factor)) for module, factor in modules.items()]):
        return passed_through(wired.layout, batch, wired.sites, wired.dtype)


def _values_fit(wired: Wired, batch: Batch) -> set[Sublayer]:
    """The attentions whose values are the outputs of their value map, group by group."""
    found: set[Sublayer] = set()
    parts = {sub: site for (sub, end), site in _parts(wired).items() if end == "v"}
    if not parts:
        return found
    outputs: dict[nn.Module, Tensor] = {}
    passed = _with_outputs(wired, batch, {site.map.module: 1.0 for site in parts.values()}, outputs)
    for sub, site in parts.items():
        one = passed.attended.get(sub.entrance)
        if one is not None:
            own = outputs[site.map.module].unflatten(-1, (one.value.shape[1], -1)).transpose(1, 2)
            if own.shape == one.value.shape and torch.allclose(own, one.value, rtol=1e-4, atol=1e-5):
                found.add(sub)
    return found
