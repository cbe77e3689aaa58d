"""The routes of a run held against the model's gradients.

On a few tokens every target site is pulled once with random weights through the cut model. A source that the routes say
is reached has a gradient and none other has; every closed form's block, summed with the same weights, is that gradient
times what the source says. What is inside a sublayer and differs is pulled from then on; anything else is refused.
Cost: two forward passes of a few tokens and a backward pass a target site, once a run.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from whence.engine.dataset.blocks import Heard, Window, weights_of
from whence.engine.dataset.kernels import Kernels
from whence.engine.dataset.passing import Passed
from whence.engine.dataset.weighing import Weighed
from whence.engine.dataset.wired import Wired
from whence.errors import UnsupportedModelError
from whence.model.batch import Batch
from whence.model.selfcheck import BOUND

log = logging.getLogger(__name__)
_AGREES = 2e-3  # of the largest of a target site's sums: closed form beside gradient, in float32


def borne_out(wired: Wired, batch: Batch) -> Wired:
    """The wiring with every route held against gradients.

    Raises:
        UnsupportedModelError: a route along the stream that they do not bear out, or one that is missing.
    """
    cut = wired.passed(batch, cutting=True, heard=())
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
    passed = wired.passed(batch)
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
                "gradients, so its family's entry does not say how this model's stream is made; see "
                "docs/adding-a-model.md"
            )
        log.info("%s -> %s is pulled: its closed form is off by %.1e of %.1e", source, target, gap, scales[target])
        routes[target, source] = "backward"
    return replace(wired, routes=routes)
