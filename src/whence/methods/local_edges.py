"""Edges between two sites at single tokens: what is an effect, what is a gradient, and what goes another way.

    effect(u, d)      w(u -> d) = c_dᵀ J v_u: the metric's gradient through d, the Jacobian between the two with every
                      site on the way held, the difference that u writes
    gradient(u, d)    the same before the difference: c_dᵀ J of every coordinate of u
    indirect(u, d)    with some sites on the way not held, minus the effect: paths that pass one or several of them

They are what the edges of `feature_circuit` are sums of: its weight u -> d is the mean over examples of effect(u, d),
summed over positions. Attribution to first order at the clean point; norms and attention live. Cost: a forward and a
backward pass when made, which are kept; then rows of targets and of sources an edge asked for. Knows nothing of
thresholds on edges.
"""

from typing import Any

import torch

from whence.engine.circuits.baseline import baseline_of
from whence.engine.circuits.checks import counts
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.discovery import Discovery, Settings
from whence.engine.circuits.examples import examples_of
from whence.engine.circuits.local import Local
from whence.engine.circuits.measure import refuse_flat
from whence.methods.local_edges_object import LocalEdges
from whence.model.model import Model
from whence.progress import Progress, silent


def local_edges(
    model: Model,
    dictionaries: Any,
    clean: Any,
    patch: Any = None,
    metric: Any = None,
    *,
    baseline: Any = None,
    nodes: float | None = None,
    batch_size: int = 8,
    progress: Progress = silent,
) -> LocalEdges:
    """Edges between any two sites at single tokens, to be asked for as effects, gradients or indirect effects.

    Args:
        model: the model.
        dictionaries: as `feature_circuit` takes them.
        clean: `Pairs`, or prompts in any form the model takes.
        patch: prompts to compare with, token by token, where `clean` is not `Pairs`.
        metric: what to explain; None for the pairs' own answers.
        baseline: where units go, as in `feature_circuit`.
        nodes: only units whose effect to first order, summed over positions and mean over examples, exceeds this in
            size; None for every unit.
        batch_size: examples that run together.
        progress: told of examples done.

    Raises:
        ValueError, TypeError: an argument that cannot be meant.
        UnsupportedModelError: a model that is no sum of sublayers.
        WhenceError: no unit has any effect.

    Example:
        >>> import whence
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> saes = whence.load_dictionary(whence.demo.dictionary_path("sae_resid_post"))
        >>> edges = local_edges(model, saes, whence.demo.agreement_pairs(model, "simple", n=2), nodes=0.05)
        >>> [name for name in edges.effect("2.resid_post", "3.resid_post").axes]
        ['example', 'target_position', 'target_unit', 'source_position', 'source_unit']
    """
    if nodes is not None and not 0 <= nodes < float("inf"):
        raise ValueError(f"nodes={nodes}; it is a size that effects must exceed, at least 0, or None for every unit")
    counts(batch_size=batch_size)
    examples = examples_of(model, clean, patch, metric, aligned=False)
    network = network_of(model, dictionaries)
    baseline = baseline if baseline is not None else "zero" if examples.patch is None else "patch"
    settings = Settings("gradient", 1, "midpoint", nodes or 0.0, "aggregate", "gradient", batch_size)
    with network.running():
        start = baseline_of(network, examples, baseline, batch_size)
        run = Discovery(network, examples, start, settings, progress, keep=True)
        gathered, found = run.effects()
    refuse_flat(max(float(one.mean.abs().max()) for one in gathered), examples.measure.name)
    parts = tuple(Local(one.asked, one.gradient, one.metric) for one in found if one.asked is not None)
    if nodes is None:
        chosen = {site: torch.arange(site.units.count) for site in network.sites}
    else:
        chosen = {one.site: one.unit for one in run.nodes(gathered)}
    return LocalEdges(network, parts, chosen, tuple(map(len, examples.clean)))
