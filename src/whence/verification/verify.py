"""Predicted against measured: remove a graph's nodes one by one and see what every row does.

    predicted   - weights[:, s]                    measured   row(run without s) - row(run as it is)

All that MLPs, experts and recurrences write is held at the clean run's values but for the write removed. With attention
patterns and norm scales held too, both must agree up to rounding, since a graph explains that affine map; with these
live the difference is what the graph leaves out. Removals are `whence.ablate`'s, rows are read from the dictionary and
the model's modules: nothing is shared with the engine that made the graph.

Cost: two forward passes for each node, many nodes to a batch. `rest` and `bias` stand for many writes at once and are
not removed; nor are positions at which a graph in circuit-tracer's convention leaves MLPs out.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.interventions.kinds import ablate
from whence.interventions.session import Freeze, as_set, seated
from whence.model.batch import Batch
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted
from whence.progress import Progress, silent
from whence.results.graph import Graph
from whence.results.keys import Node
from whence.verification.agreement import agreement
from whence.verification.readouts import Readout, directions, modules, readouts
from whence.verification.report import VerificationReport

TOKENS_AT_ONCE = 2048  # of a batch of removals: bounds what its rows keep of the stream


@torch.no_grad()
def verify(
    graph: Graph,
    model: Model,
    dictionary: Any = None,
    *,
    k: int | None = 64,
    nodes: Iterable[Node | str] | None = None,
    targets: Any = None,
    progress: Progress = silent,
) -> VerificationReport:
    """Whether the model does what the graph says.

    Args:
        graph: an attribution graph.
        model: the model it is of.
        dictionary: what it was made with; None for a graph of neurons.
        k: how many nodes to remove, those with the largest sum of |weight| first; None for all.
        nodes: the nodes to remove instead.
        targets: the directions it explains, if they are not tokens.
        progress: told of nodes removed.

    Raises:
        ValueError: a graph of another model or dictionary, or of directions that are not given.
        KeyError: a node the graph lacks.

    Example:
        >>> whence.verify(graph, model, transcoders).check(max_error=1e-3)  # doctest: +SKIP
    """
    units = _units(graph, model, dictionary)
    chosen = _chosen(graph, k, nodes)
    sides: list[tuple[Tensor, Tensor]] = []
    for frozen in (True, False):
        measured = _measured(graph, model, units, chosen, targets, frozen, progress)
        sides.append(measured)
    rows = sides[0][0]
    predicted = -_columns(graph, rows, chosen)
    largest = max((float(block.values.abs().max()) for block in graph.weights if block.values.numel()), default=0.0)
    found = [agreement(predicted, measured, largest) for _, measured in sides]
    return VerificationReport(
        nodes=tuple(str(graph.nodes[i]) for i in chosen.tolist()),
        frozen=found[0][0],
        live=found[1][0],
        worst_rows=tuple(str(graph.nodes[int(rows[row])]) for row in found[0][1]),
    )


def _units(graph: Graph, model: Model, dictionary: Any) -> DictionarySet | Neurons:
    """What the graph's features are, once it is seen to be of this model and dictionary."""
    if graph.vocab_size != model.vocab_size:
        raise ValueError(f"the graph is of a model with {graph.vocab_size} logits; this one has {model.vocab_size}")
    if dictionary is not None and not isinstance(dictionary, Neurons):
        if len(graph.nodes.of("mlp.neuron")):
            raise ValueError("the graph is of neurons; leave dictionary= out")
        found = as_set(dictionary, model)
        assert found is not None
        return found
    if len(graph.nodes.of("mlp.feature", "mlp.error")):
        raise ValueError("the graph is of a dictionary's features; pass that dictionary as dictionary=")
    stated = graph.provenance.get("dictionary")
    if isinstance(stated, dict) and stated.get("gate") == "derivative":
        raise ValueError("rows of Neurons(gate='derivative') are first-order estimates; verify a gate='frozen' graph")
    return Neurons()


def _chosen(graph: Graph, k: int | None, nodes: Iterable[Node | str] | None) -> Int[Tensor, " node"]:
    if nodes is not None:
        return torch.tensor([graph.nodes.find(node) for node in nodes], dtype=torch.long)
    strength = torch.zeros(len(graph.nodes))
    for block in graph.weights:
        strength.index_add_(0, block.columns.cpu(), block.values.abs().sum(0).float().cpu())
    strength[graph.nodes.of("rest", "bias", "output")] = -1
    if graph.provenance.get("convention") == "circuit-tracer":
        errors = graph.nodes.of("mlp.error")
        left_out = torch.tensor(graph.provenance.get("bos", [0]))
        strength[errors[torch.isin(graph.nodes.position[errors], left_out)]] = -1
    order = strength.argsort(descending=True, stable=True)
    return order[: int((strength >= 0).sum())][:k]


def _measured(
    graph: Graph,
    model: Model,
    units: DictionarySet | Neurons,
    chosen: Tensor,
    targets: Any,
    frozen: bool,
    progress: Progress,
) -> tuple[Int[Tensor, " row"], Float[Tensor, "row node"]]:
    """The graph's rows, and how each changes when each node is removed."""
    batch = model.batch(graph.input_tokens)
    found: list[Tensor] = []
    listening: list[Readout] = []
    stage = "verify, frozen" if frozen else "verify, live"
    for some in chosen.split(max(1, TOKENS_AT_ONCE // batch.ids.shape[1])):
        keys = [graph.nodes[i] for i in some.tolist()]
        clean, changed = _removed(model, units, batch, keys, frozen)
        if not listening:
            vectors = directions(model, graph, targets, clean.logits[0, -1])
            listening = readouts(model, graph, units, clean, vectors)
        said = torch.cat([readout.said(changed) for readout in listening], 1)
        found.append((said[1:] - said[:1]).T.cpu())
        progress(stage, sum(part.shape[1] for part in found), len(chosen))
    rows = torch.cat([readout.rows for readout in listening]) if listening else torch.zeros(0, dtype=torch.long)
    return rows, torch.cat(found, 1) if found else torch.zeros(0, 0)


def _removed(
    model: Model, units: DictionarySet | Neurons, batch: Batch, keys: Sequence[Node], frozen: bool
) -> tuple[Trace, Trace]:
    """The clean run, and one whose first example is as it is and whose others each lack one node."""
    lists = [[], *([ablate(_without_token(key))] for key in keys)]
    wide = Batch(batch.ids.expand(len(lists), -1), batch.lengths.expand(len(lists)))
    dictionary = units if isinstance(units, DictionarySet) else None
    freeze = Freeze(attention=frozen, norms=frozen, layers=range(model.n_layers))
    wanted = Wanted(writes=False, around=modules(model.layout, units))
    with seated(model, batch.ids, lists, batch, dictionary, freeze) as session:
        traces: list[Trace] = []
        for part in (batch, wide):
            everything = part.rows(None)
            traces.append(record(model.layout, part, everything, keep=everything[:, -1:], wanted=wanted))
            session.begin(wide)
    return traces[0], traces[1]


def _without_token(node: Node) -> Node:
    """An embedding is removed whatever token it is of."""
    return Node(node.name, position=node.position) if node.name in ("embed", "pos_embed") else node


def _columns(graph: Graph, rows: Tensor, chosen: Tensor) -> Float[Tensor, "row node"]:
    """weights[rows, chosen], dense."""
    place = torch.full((len(graph.nodes),), -1)
    place[rows] = torch.arange(len(rows))
    dense = torch.zeros(len(rows), len(chosen), dtype=graph.weights.dtype)
    for number, column in enumerate(chosen.tolist()):
        targets, values = graph.weights.column(column)
        kept = place[targets] >= 0
        dense[place[targets[kept]], number] = values[kept]
    return dense
