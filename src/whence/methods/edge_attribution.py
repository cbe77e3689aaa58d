"""Edge attribution patching: the direct edges between token embeddings, heads, MLPs and the metric, all at once.

    score(u -> v) = sum over tokens of (u at the baseline - u) · dm/d(what v reads, through v alone)

for every u before v; v a query, key or value of a head, an MLP, or the metric. The scores of all edges out of u sum to
the effect of u by the same gradient. With method="integrated_gradients" the gradient is averaged over points on the way
to the baseline: of token embeddings (path="inputs"; edges out of `embed` then sum to what the metric does when the
embeddings go there), or of each source's own site (path="activations"; that holds for every site). These are estimates:
`report` in the provenance says by how much those sums miss.
Sources: Syed et al. 2023 (arXiv:2310.10348); Hanna et al. 2024, "Have Faith in Faithfulness" (arXiv:2403.17806).

Cost: two forward passes and a backward one, and about the operations of another forward pass for the edges; integrated
gradients `steps` times that, "activations" once a site. Memory: in head space, and examples x edges numbers; with
neurons neurons x targets. Knows nothing of dictionaries (`feature_circuit`), nor of edges from neuron to neuron.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from whence.engine.circuits.baseline import KINDS, baseline_of
from whence.engine.circuits.checks import counts, one_of
from whence.engine.circuits.choosing import describe, network_of
from whence.engine.circuits.effects import Rule
from whence.engine.circuits.examples import Examples, examples_of
from whence.engine.circuits.measure import refuse_flat
from whence.engine.head_edges.assembling import EdgeTables, assemble_edges
from whence.engine.head_edges.paths import EdgeRun, PartEdges, Path, Route
from whence.engine.head_edges.wiring import HeadWiring, head_wiring_of
from whence.errors import WhenceError
from whence.methods.circuit_object import Circuit
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.model.selfcheck import few_tokens
from whence.progress import Progress, silent

FLAT = 1e-4  # a gradient of less than this share of its size at the baseline is rounding


def edge_attribution(
    model: Model,
    clean: Any,
    patch: Any = None,
    metric: Any = None,
    *,
    units: tuple[str, str] = ("attn.head", "mlp"),
    method: Literal["gradient", "integrated_gradients"] = "gradient",
    path: Path = "inputs",
    steps: int = 5,
    rule: Rule = "midpoint",
    baseline: Literal["patch", "zero", "mean"] | None = None,
    by_input: bool = True,
    batch_size: int = 8,
    progress: Progress = silent,
) -> Circuit:
    """The scores of all edges between token embeddings, heads, MLPs and the metric, mean over examples.

    Cut with `threshold` or `top`, write with `to_mib`. Where heads share keys and values, each head has its own edges
    into them, which sum to those of what is shared. To evaluate one, give `faithfulness` embeddings="default", for
    token embeddings are a node here; with neurons there is no evaluation, for what an MLP reads as a whole is no unit.

    Args:
        model: the model.
        clean: `Pairs`, or prompts in any form the model takes; lengths may differ.
        patch: prompts to compare with, token by token, where `clean` is not `Pairs`.
        metric: what to explain, at each prompt's last token; None for the pairs' own answers, logit[patch answer] -
            logit[clean answer].
        units: "attn.head" with "mlp", or with "mlp.neuron": then MLPs read as a whole (`2.mlp`) and write neuron by
            neuron (`2.mlp.neuron:5`).
        method: "gradient" (EAP) or "integrated_gradients" (EAP-IG).
        path: what goes to the baseline on the way: "inputs" or "activations"; for "gradient" without meaning.
        steps: points of the way.
        rule: "midpoint", or "left" as a left sum.
        baseline: where units go; "patch" where there are patch prompts and "zero" where not, if None.
        by_input: whether a head's query, key and value are targets of their own (`3.attn.head:1.q`).
        batch_size: examples that run together; integrated gradients run `steps` times as many.
        progress: told of examples done.

    Raises:
        ValueError, TypeError: an argument that cannot be meant.
        UnsupportedModelError: a model with other sublayers than attentions and MLPs, or without visible patterns.
        WhenceError: the metric is flat at the clean run, as a divergence from that very run is.
        LedgerError: edges that do not sum to effects.

    Example:
        >>> import whence
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> pairs = whence.demo.agreement_pairs(model, "simple", n=4)
        >>> circuit = edge_attribution(model, pairs)
        >>> circuit.into("0.attn.head:0.q")[0].edge.source
        Node(name='embed', layer=None, index=None, end=None, position=None, source=None)
    """
    _check(units, method, path, steps, rule, baseline, batch_size)
    examples = examples_of(model, clean, patch, metric, aligned=False)
    network = network_of(model, units)
    kind = baseline if baseline is not None else "zero" if examples.patch is None else "patch"
    route = Route(path if method == "integrated_gradients" else None, steps, rule)
    with network.running():
        wiring = head_wiring_of(network, few_tokens(model.layout, model._embedded_tokens()), by_input=by_input)
        run = EdgeRun(wiring, examples.measure, baseline_of(network, examples, kind, batch_size), route)
        found = _all(run, examples, batch_size, progress)
    if route.path is None:
        _refuse_at_minimum(found, examples.measure.name)
    tables = _tables(found, run.by_example, len(examples))
    refuse_flat(float(tables.table.abs().max()), examples.measure.name)
    about = provenance(
        model,
        "edge_attribution",
        dictionaries=describe(units),
        pairs=examples.about,
        metric=examples.measure.name,
        effects=method,
        **route.recorded(),
        baseline=kind,
        by_input=by_input,
        aggregate="sum",
        norms="live",
        attention="live",
        cfg=network.sizes(model.d_model),
        report=_report(found, tables, wiring),
    )
    parts = assemble_edges(wiring, tables)
    return Circuit(parts.nodes, parts.effects, parts.weights, (), len(examples), parts.samples, about)


def _all(run: EdgeRun, examples: Examples, batch_size: int, progress: Progress) -> list[PartEdges]:
    found: list[PartEdges] = []
    done = 0
    for part in examples.parts(batch_size):
        found.append(run.of(part).cpu())
        done += len(part.example)
        progress("edges", done, len(examples))
    return found


def _tables(found: list[PartEdges], by_example: bool, examples: int) -> EdgeTables:
    tables = [one.table.double() for one in found]
    reach = sum((one.reach.double() for one in found), torch.zeros(())) / examples
    total = torch.cat([one.total.double() for one in found])
    if by_example:
        return EdgeTables(torch.cat(tables), reach, total)
    return EdgeTables(sum(tables, torch.zeros(())) / examples, reach, total)


def _report(found: list[PartEdges], tables: EdgeTables, wiring: HeadWiring) -> dict[str, Any]:
    """What edges sum to, and what they are to sum to."""
    out = tables.table.mean(0).sum(0)

    def mean(changes: list[Tensor]) -> float:
        return float(torch.cat(changes).double().mean())

    completeness = {
        site.key: {
            "edges": float(out[wiring.columns[site]].sum()),
            "change": mean([one.change[site] for one in found]),
        }
        for site in found[0].change
    }
    return {"completeness": completeness, "edges_miss_effects_by": max(one.missed for one in found)}


def _refuse_at_minimum(found: list[PartEdges], name: str) -> None:
    here, there = (sum(one.slopes[which] ** 2 for one in found) ** 0.5 for which in (0, 1))
    if here < FLAT * there:
        raise WhenceError(
            f"the gradient of {name} is 0 at the clean run ({here:.1e}, and {there:.1e} at the baseline), as that of a "
            "divergence from that very run is, so to first order no edge does anything; use "
            "method='integrated_gradients' or another metric"
        )


def _check(
    units: tuple[str, ...], method: str, path: str, steps: int, rule: str, baseline: str | None, batch_size: int
) -> None:
    if sorted(units) not in (["attn.head", "mlp"], ["attn.head", "mlp.neuron"]):
        raise ValueError(f"units={units!r}; they are ('attn.head', 'mlp') or ('attn.head', 'mlp.neuron')")
    words: dict[str, tuple[str, tuple[str, ...]]] = {
        "method": (method, ("gradient", "integrated_gradients")),
        "path": (path, get_args(Path)),
        "rule": (rule, get_args(Rule)),
    }
    one_of(words if baseline is None else words | {"baseline": (baseline, KINDS)})
    counts(steps=steps, batch_size=batch_size)
