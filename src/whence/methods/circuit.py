"""Sparse feature circuits: which features carry a behaviour over many examples, and along which direct edges.

    effect of a unit    m(unit at its baseline) - m, to first order, integrated, or exactly, mean over examples
    edge u -> d         c_dᵀ J v_u: what u's difference does to d directly, every site between them held, times what d
                        does to the metric; on the clean point all out-edges of u sum to its effect by gradient

Units are features of SAEs or transcoders with an error node each, heads, neurons, whole sublayers, token embeddings.
These are estimates but for method="exact": the result reports by how much a site's effects miss what the metric does
when the site goes to the baseline. `Circuit.faithfulness` checks a circuit by running the model on it alone.
Source: Marks et al. 2024, "Sparse Feature Circuits" (arXiv:2403.19647).

Cost: a forward and a backward pass for effects by gradient; `steps` replays of the rest of the model a site for
integrated gradients; for edges rows of kept targets and sources, whatever the depth. Knows nothing of single prompts'
graphs (`attribution_graph`).
"""

from typing import Any, Literal

from whence.engine.circuits.assembling import assemble
from whence.engine.circuits.baseline import baseline_of
from whence.engine.circuits.checks import counts, one_of
from whence.engine.circuits.choosing import describe, network_of
from whence.engine.circuits.discovery import Discovery, Settings
from whence.engine.circuits.effects import Method, Rule
from whence.engine.circuits.examples import examples_of
from whence.engine.circuits.measure import refuse_flat
from whence.methods.circuit_object import Circuit
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.progress import Progress, silent


def feature_circuit(
    model: Model,
    dictionaries: Any,
    clean: Any,
    patch: Any = None,
    metric: Any = None,
    *,
    method: Method = "integrated_gradients",
    steps: int = 10,
    rule: Rule = "midpoint",
    baseline: Any = None,
    aggregate: Literal["sum", "none"] = "sum",
    node_threshold: float = 0.1,
    edge_threshold: float = 0.01,
    edges: bool = True,
    edge_gradient: Literal["gradient", "integrated_gradients"] = "gradient",
    gate: Literal["aggregate", "per_example"] = "aggregate",
    batch_size: int = 8,
    progress: Progress = silent,
) -> Circuit:
    """The circuit of units whose effect on a metric exceeds a threshold, and the direct edges between them.

    Args:
        model: the model.
        dictionaries: SAEs or transcoders (`whence.load_dictionary`), sets of them, and the names "attn.head",
            "mlp.neuron", "attn", "mlp" for the model's own units; any subset of sites. Token embeddings are always
            there.
        clean: `Pairs`, or prompts in any form the model takes.
        patch: prompts to compare with, token by token, where `clean` is not `Pairs`.
        metric: what to explain, at each prompt's last token; None for the pairs' own answers, logit[patch answer] -
            logit[clean answer].
        method: "gradient" (attribution patching), "integrated_gradients", or "exact" (patching, one unit and token at
            a time).
        steps: points of the integral; for "exact" without meaning.
        rule: "midpoint", or "left" as published; the midpoint is closer with as many points.
        baseline: where units go: "patch", "zero", "mean", a vector for a site, or vectors by site; "patch" where there
            are patch prompts and "zero" where not, if None.
        aggregate: "sum" sums positions; "none" keeps them, aligned by slots.
        node_threshold: a node's mean effect must exceed this in size.
        edge_threshold: an edge's mean weight must.
        edges: whether edges are found.
        edge_gradient: where an edge's derivative is taken: at the clean point, or averaged on the way to the baseline,
            so that targets whose gate is closed at the clean point have in-edges too.
        gate: "aggregate" applies the threshold to means; "per_example" keeps a unit at each token where its own effect
            exceeds it, as the published code does.
        batch_size: examples that run together; integrated gradients run `steps` times as many.
        progress: told of examples done.

    Raises:
        ValueError, TypeError: an argument that cannot be meant.
        UnsupportedModelError: a model that is no sum of sublayers.
        WhenceError: no unit has any effect.

    Example:
        >>> import whence
        >>> model = whence.Model.from_pretrained(whence.demo.model_path())
        >>> saes = whence.load_dictionary(whence.demo.dictionary_path("sae_resid_post"))
        >>> pairs = whence.demo.agreement_pairs(model, "simple", n=4)
        >>> circuit = feature_circuit(model, saes, pairs, method="gradient")
        >>> str(circuit.nodes[len(circuit.nodes) - 1])
        'metric'
    """
    _check(method, steps, rule, aggregate, node_threshold, edge_threshold, edge_gradient, gate, batch_size)
    examples = examples_of(model, clean, patch, metric, aligned=aggregate == "none")
    network = network_of(model, dictionaries)
    baseline = baseline if baseline is not None else "zero" if examples.patch is None else "patch"
    settings = Settings(method, steps, rule, node_threshold, gate, edge_gradient, batch_size)
    with network.running():
        start = baseline_of(network, examples, baseline, batch_size)
        run = Discovery(network, examples, start, settings, progress)
        gathered, found = run.effects()
        refuse_flat(max(float(one.mean.abs().max()) for one in gathered), examples.measure.name)
        chosen = run.nodes(gathered)
        entries = run.edges(gathered, chosen, found) if edges else None
    parts = assemble(gathered, chosen, entries, run.all_totals(), edge_threshold, aggregate == "none")
    return Circuit(
        nodes=parts.nodes,
        effects=parts.effects,
        weights=parts.weights,
        slots=examples.order,
        examples=len(examples),
        samples=parts.samples,
        provenance=provenance(
            model,
            "feature_circuit",
            dictionaries=describe(dictionaries),
            pairs=examples.about,
            metric=examples.measure.name,
            effects=method,
            steps=steps,
            rule=rule,
            baseline=start.kind,
            aggregate=aggregate,
            thresholds={"node": node_threshold, "edge": edge_threshold},
            edges=edges,
            edge_gradient=edge_gradient,
            gate=gate,
            norms="live",
            attention="live",
            cfg=network.sizes(model.d_model),
            **_reported(run.completeness(gathered), run.closed if edges else None),
        ),
    )


def _reported(completeness: dict[str, tuple[float, float]], closed: int | None) -> dict[str, Any]:
    """What the estimates miss: sums of effects beside what whole sites do, and nodes that nothing flows into."""
    report: dict[str, float | int] = {} if closed is None else {"closed gates": closed}
    if completeness:
        report["largest completeness gap"] = max(abs(whole - effects) for effects, whole in completeness.values())
    return {"completeness": {site: list(both) for site, both in completeness.items()}, "report": report}


def _check(
    method: str,
    steps: int,
    rule: str,
    aggregate: str,
    node_threshold: float,
    edge_threshold: float,
    edge_gradient: str,
    gate: str,
    batch_size: int,
) -> None:
    one_of(
        {
            "method": (method, ("gradient", "integrated_gradients", "exact")),
            "rule": (rule, ("midpoint", "left")),
            "aggregate": (aggregate, ("sum", "none")),
            "edge_gradient": (edge_gradient, ("gradient", "integrated_gradients")),
            "gate": (gate, ("aggregate", "per_example")),
        }
    )
    counts(steps=steps, batch_size=batch_size)
    for name, number in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= number < float("inf"):
            raise ValueError(f"{name}={number}; it is a size that effects must exceed, at least 0")
