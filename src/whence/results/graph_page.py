"""A graph as one page of HTML: tokens by layers, edges, a slider to prune, every weight as text.

The page is `graph_page.html` with what it shows in it as JSON; circuits fill the same one. It opens from disk and asks
no network: a policy in the page forbids it. Whatever comes from a prompt reaches the page as text only. Cost: one
record a node and an edge shown. It knows nothing of how the graph was made.
"""

import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results import influence
from whence.results.edges import strongest_entries
from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, scores, size, title
from whence.results.kinds import Kind, kind_of
from whence.results.sheet import NEGATIVE, POSITIVE

_MARK = re.compile(r"\[\[([A-Z]+)\]\]")
_SHAPES: dict[Kind, str] = {
    **dict.fromkeys(("token", "output"), "diamond"),
    **dict.fromkeys(("error", "rest"), "square"),
    "constant": "triangle",
    "feature": "circle",
}
_LEGEND = (("feature", "feature"), ("error", "error, rest"), ("constant", "constant"), ("token", "token, output"))


def write_page(graph: ScoredGraph, path: str | Path, nodes: int = 400, edges: int = 4000) -> Path:
    """The file written.

    Args:
        graph: The graph.
        path: The file.
        nodes: At most so many nodes, those with most influence; tokens and outputs always.
        edges: At most so many edges among them.

    Example:
        >>> write_page(graph, "austin.html")  # doctest: +SKIP
        PosixPath('austin.html')
    """
    Path(path).write_text(page(graph, nodes, edges), encoding="utf-8")
    return Path(path)


def page(graph: ScoredGraph, nodes: int = 400, edges: int = 4000) -> str:
    """The text of the page.

    Args:
        graph: The graph.
        nodes: At most so many nodes.
        edges: At most so many edges among them.
    """
    return filled(_content(graph, nodes, edges))


def filled(content: dict[str, Any]) -> str:
    """The text of the page that shows this.

    Args:
        content: Title, lines, rows from below, columns, nodes in them and edges between nodes: what the script reads.
    """
    template = files("whence.results").joinpath("graph_page.html").read_text(encoding="utf-8")
    data = json.dumps(content, allow_nan=False)
    # In a script element only "<" could end it; in JSON it can only stand in a string.
    parts = {"TITLE": escape(content["title"]), "POSITIVE": POSITIVE, "NEGATIVE": NEGATIVE}
    parts["DATA"] = data.replace("<", "\\u003c")
    # In one pass, so that a prompt that looks like one of these marks stays what it is.
    return _MARK.sub(lambda mark: parts[mark[1]], template)


def _content(graph: ScoredGraph, nodes: int, edges: int) -> dict[str, Any]:
    shown = _shown(graph, nodes)
    place = torch.full((len(graph.nodes),), -1, dtype=torch.int64)
    place[shown] = torch.arange(len(shown))
    among = graph.weights.select(shown)
    flow = influence.edge_scores(among, (graph.influence() + graph._targets)[shown])
    rows, columns, values = strongest_entries(among, flow, edges)
    hidden = len(shown) < len(graph.nodes), len(rows) < among.nnz
    cut = said_cut(f"{len(shown):,} nodes with most influence" if hidden[0] else "", len(rows) if hidden[1] else None)
    layers = int(graph.nodes.layer.max()) + 1 if len(graph.nodes) else 0
    return {
        "title": title(graph),
        "lines": [f"{size(graph)}{cut}", f"{scores(graph)}; {graph.certificate}"],
        "columns": list(graph.token_texts),
        "numbered": True,
        "rows": ["tokens", *(f"layer {layer}" for layer in range(layers)), "outputs"],
        "measure": "of influence",
        "extras": "errors and constants",
        "marks": _SHAPES,
        "legend": _LEGEND,
        "nodes": _nodes(graph, shown, layers),
        "edges": listed(rows, columns, values),
    }


def listed(
    rows: Int[Tensor, " edge"], columns: Int[Tensor, " edge"], values: Float[Tensor, " edge"]
) -> list[list[int | float]]:
    """Edges as the page takes them: source, target, weight, in the order given."""
    return [list(edge) for edge in zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)]


def said_cut(nodes: str, edges: int | None) -> str:
    """What a page that does not show everything says behind the size.

    Args:
        nodes: Which nodes are shown; "" for all.
        edges: How many edges are shown; None for all.
    """
    said = [f"the {nodes}"] * bool(nodes) + ([] if edges is None else [f"{edges:,} edges"])
    return f"; shown are {' and '.join(said)}" if said else ""


def _shown(graph: ScoredGraph, most: int) -> Int[Tensor, " shown"]:
    """The nodes with most influence, tokens and outputs, in the order of the graph."""
    always = graph.nodes.named(lambda name: name in ("embed", "output"))
    rank = graph.influence().masked_fill(always, -1.0).argsort(descending=True, stable=True)
    always[rank[: max(0, most - int(always.sum()))]] = True
    return always.nonzero().reshape(-1)


def _nodes(graph: ScoredGraph, shown: Int[Tensor, " shown"], layers: int) -> list[dict[str, Any]]:
    table = graph.nodes.select(shown)
    activations = torch.full((len(graph.nodes),), float("nan"), dtype=graph.activation_values.dtype)
    kinds = kind_of(graph.nodes)
    features = [row for row, kind in enumerate(kinds) if kind == "feature"]
    activations[features] = graph.activation_values[graph.selected_features]
    weights = dict(zip(graph.vocab_indices, graph.logit_probabilities.tolist(), strict=True))
    flow, shares = graph.influence().tolist(), graph.cumulative_influence().tolist()
    out: list[dict[str, Any]] = []
    for row, node in zip(shown.tolist(), table, strict=True):
        weight = weights[node.index] if node.name == "output" and isinstance(node.index, int) else None
        notes = [f"{100 * flow[row]:.1f} % of influence"] if weight is None else [f"probability {weight:.3g}"]
        notes += [f"activation {activations[row].item():.3g}"] if kinds[row] == "feature" else []
        record = {"key": str(node), "label": label(graph, node), "kind": kinds[row], "what": kinds[row]}
        record["row"] = layers + 1 if weight is not None else 0 if node.layer is None else node.layer + 1
        record["column"] = -1 if node.position is None else node.position
        record |= {"share": shares[row], "notes": notes}
        record["beside"] = "" if weight is None else f"{label(graph, node)}  {weight:.2f}"
        out.append(record)
    return out
