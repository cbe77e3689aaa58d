"""Predicted against measured: remove a graph's nodes one by one and see what every row does.

    predicted   - weights[:, s]                    measured   row(run without s) - row(run as it is)

All that MLPs, experts and recurrences write is held at the clean run's values but for the write removed. With attention
patterns and norm scales held too, both must agree up to rounding, since a graph explains that affine map; with these
live the difference is what the graph leaves out. Removals are `whence.ablate`'s, rows are read from the dictionary and
the model's modules: nothing is shared with the engine that made the graph.

Cost: two forward passes for each node, many nodes to a batch. `rest` and `bias` stand for many writes at once and are
not removed; nor are positions at which a graph in circuit-tracer's convention leaves MLPs out. Of a pruned graph only
the edges that are left are compared, since what was cut from it is not said to be 0.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.interventions.kinds import ablate
from whence.interventions.session import Freeze, seated
from whence.model.batch import Batch
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted
from whence.progress import Progress, silent
from whence.results.graph import Graph
from whence.results.keys import Node
from whence.verification.agreement import agreement
from whence.verification.choosing import chosen_nodes, largest_weight, units_of_graph
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
        targets: what `attribution_graph` was given, if it was directions or a `logit_difference` rather than tokens.
        progress: told of nodes removed.

    Raises:
        ValueError: a graph of another model or dictionary, or of directions that are not given; a node that cannot be
            removed; no nodes.
        KeyError: a node the graph lacks.

    Example:
        >>> whence.verify(graph, model, transcoders).check(max_error=1e-3)  # doctest: +SKIP
    """
    units = units_of_graph(graph, model, dictionary)
    chosen = chosen_nodes(graph, k, nodes)
    sides: list[tuple[Tensor, Tensor]] = []
    for frozen in (True, False):
        measured = _measured(graph, model, units, chosen, targets, frozen, progress)
        sides.append(measured)
    rows = sides[0][0]
    predicted = -_columns(graph, rows, chosen)
    largest, pruned = largest_weight(graph), graph.shares is not None or "pruned" in graph.provenance
    found = [agreement(predicted, measured, largest, edges_only=pruned) for _, measured in sides]
    return VerificationReport(
        nodes=tuple(str(graph.nodes[i]) for i in chosen.tolist()),
        frozen=found[0][0],
        live=found[1][0],
        worst_rows=tuple(str(graph.nodes[int(rows[row])]) for row in found[0][1]),
        pruned=pruned,
    )


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
        clean, changed = _removed(model, units, batch, keys, frozen, graph.provenance.get("bos"))
        if not listening:
            vectors = directions(model, graph, targets, clean.logits[0, -1])
            listening = readouts(model, graph, units, clean, vectors)
        said = torch.cat([readout.said(changed) for readout in listening], 1)
        found.append((said[1:] - said[:1]).T.cpu())
        progress(stage, sum(part.shape[1] for part in found), len(chosen))
    rows = torch.cat([readout.rows for readout in listening]) if listening else torch.zeros(0, dtype=torch.long)
    return rows, torch.cat(found, 1) if found else torch.zeros(0, 0)


def _removed(
    model: Model,
    units: DictionarySet | Neurons,
    batch: Batch,
    keys: Sequence[Node],
    frozen: bool,
    bos: Sequence[int] | None,
) -> tuple[Trace, Trace]:
    """The clean run, and one whose first example is as it is and whose others each lack one node."""
    lists = [[], *([ablate(key)] for key in keys)]
    wide = Batch(batch.ids.expand(len(lists), -1), batch.lengths.expand(len(lists)))
    dictionary = units if isinstance(units, DictionarySet) else None
    freeze = Freeze(attention=frozen, norms=frozen, layers=range(model.n_layers))
    wanted = Wanted(writes=False, around=modules(model.layout, units))
    with seated(model, batch.ids, lists, batch, dictionary, freeze, bos=bos) as session:
        traces: list[Trace] = []
        for part in (batch, wide):
            everything = part.rows(None)
            traces.append(record(model.layout, part, everything, keep=everything[:, -1:], wanted=wanted))
            session.begin(wide)
    return traces[0], traces[1]


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
