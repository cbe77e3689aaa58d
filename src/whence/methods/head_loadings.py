"""Head loadings: which attention heads carried an edge of an attribution graph?

    weights[t, s] = direct + sum over layers m and heads h of loading(m, h)

Exact, and complete over all layers: every path from source to target counts once, at the head nearest the source or, on
request, nearest the target (engine.head_loadings has the derivation). Each edge is solved anew as a row of the graph,
and parts that do not sum to it are refused.
Source: Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions".

Cost: one forward pass, and about two rows of an attribution graph per target (by source), or one per source and one per
target. Knows nothing of why a head looked where it did; that is `whence.qk_attribution`.
"""

from collections.abc import Iterable
from typing import Any

from whence.engine.edge_loadings import EdgeLoadings
from whence.engine.linearize import linearize
from whence.engine.prompts import bos_positions, one_prompt, units_of
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.head_loadings import HeadLoadings
from whence.results.keys import Edge, Node


def head_loadings(
    model: Model,
    dictionary: Any,
    prompt: Any,
    edges: Iterable[Edge | tuple[Node | str, Node | str]],
    *,
    by: str = "source",
    targets: Any = None,
    progress: Progress = silent,
) -> HeadLoadings:
    """Edges of the prompt's attribution graph, split over heads.

    Args:
        model: the model.
        dictionary: as for `attribution_graph`.
        prompt: as for `attribution_graph`; of a graph that is there, `graph.input_tokens`.
        edges: (source, target) pairs of node keys, e.g. ("embed:262@3", "2.mlp.feature:17@5").
        by: where a path that crosses several heads counts: at the head nearest its "source", the first to move what the
            source wrote, or nearest its "target".
        targets: as for `attribution_graph`, where edges end at its virtual outputs; tokens need none.
        progress: told of targets (or sources) done.

    Returns:
        Loadings of every head, the part of each edge that no head carries, and the edges' weights.

    Raises:
        ValueError: no edges; a source or target that this prompt does not have, or that has no row.
        KeyError: a node that is not there; names those most like it.
        UnsupportedModelError: a model whose attention cannot be held.
        LedgerError: parts that do not sum to their edge.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> transcoders = whence.load_dictionary(dictionary_path("transcoders"))
        >>> graph = whence.attribution_graph(model, transcoders, PROMPT, [" Austin"], max_nodes=4)
        >>> edge = (graph.nodes[0], graph.nodes[len(graph.nodes) - 1])
        >>> whence.head_loadings(model, transcoders, PROMPT, [edge]).values.shape
        torch.Size([16, 1])
    """
    wanted = [_edge(edge) for edge in edges]
    if by not in ("source", "target"):
        raise ValueError(f"by={by!r}; it is 'source' or 'target'")
    if not wanted:
        raise ValueError("edges= is empty; give (source, target) pairs of node keys")
    batch, last = one_prompt(model, prompt, _last(wanted))
    units = units_of(model, dictionary)
    bos = bos_positions(model, batch, None)
    linear = linearize(model, batch, units, position=last, bos=bos)
    job = EdgeLoadings(model, linear, wanted, targets)
    values, direct, weights, magnitude = job.split(by, progress)
    gap = (weights.double() - direct.double() - values.double().sum(0)).abs()
    refuse_gap(gap, magnitude, tolerance_of(model.dtype))
    about = {"dictionary": units.describe(), "by": by, "bos": list(bos)}
    frozen = {"norms": True, "attention": True, "mlps": "replaced"}
    return HeadLoadings(
        heads=job.heads(),
        edges=tuple(wanted),
        values=values.cpu(),
        direct=direct.cpu(),
        weights=weights.cpu(),
        by=by,
        provenance=provenance(model, "head_loadings", **about, frozen=frozen),
    )


def _edge(given: Edge | tuple[Node | str, Node | str]) -> Edge:
    source, target = (given.source, given.target) if isinstance(given, Edge) else given
    edge = Edge(*(Node.parse(node) if isinstance(node, str) else node for node in (source, target)))
    if edge.target.position is None:
        raise ValueError(f"{edge}: the target needs a position, as in '2.mlp.feature:17@5' or 'output:262@9'")
    if edge.source.name in ("bias", "rest"):
        raise ValueError(f"{edge}: {edge.source} sums over positions and layers; name single sources")
    return edge


def _last(edges: list[Edge]) -> int:
    return max(edge.target.position or 0 for edge in edges)
