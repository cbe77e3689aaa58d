"""A graph as one page of HTML: tokens by layers, edges, a slider to prune, every weight as text.

The page is `graph_page.html` with the graph in it as JSON. It opens from disk and asks no network: a policy
in the page forbids it. Whatever comes from a prompt reaches the page as text only. Cost: one record a node and an edge
shown. It knows nothing of how the graph was made.
"""

import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from whence.results import influence
from whence.results.edges import strongest_entries
from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label, scores, size, title
from whence.results.kinds import kind_of
from whence.results.sheet import NEGATIVE, POSITIVE

_MARK = re.compile(r"\[\[([A-Z]+)\]\]")


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
    template = files("whence.results").joinpath("graph_page.html").read_text(encoding="utf-8")
    data = json.dumps(_content(graph, nodes, edges), allow_nan=False)
    # In a script element only "<" could end it; in JSON it can only stand in a string.
    parts = {"TITLE": escape(title(graph)), "POSITIVE": POSITIVE, "NEGATIVE": NEGATIVE}
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
    cut = f"; shown are the {len(shown):,} nodes with most influence" if len(shown) < len(graph.nodes) else ""
    cut += f"{'' if cut else '; shown are'}{' and' if cut else ''} {len(rows):,} edges" if len(rows) < among.nnz else ""
    return {
        "title": title(graph),
        "lines": [f"{size(graph)}{cut}", f"{scores(graph)}; {graph.certificate}"],
        "tokens": list(graph.token_texts),
        "layers": int(graph.nodes.layer.max()) + 1 if len(graph.nodes) else 0,
        "nodes": _nodes(graph, shown),
        "edges": [list(edge) for edge in zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)],
    }


def _shown(graph: ScoredGraph, most: int) -> Int[Tensor, " shown"]:
    """The nodes with most influence, tokens and outputs, in the order of the graph."""
    always = graph.nodes.named(lambda name: name in ("embed", "output"))
    rank = graph.influence().masked_fill(always, -1.0).argsort(descending=True, stable=True)
    always[rank[: max(0, most - int(always.sum()))]] = True
    return always.nonzero().reshape(-1)


def _nodes(graph: ScoredGraph, shown: Int[Tensor, " shown"]) -> list[dict[str, Any]]:
    table = graph.nodes.select(shown)
    activations = torch.full((len(graph.nodes),), float("nan"), dtype=graph.activation_values.dtype)
    kinds = kind_of(graph.nodes)
    features = [row for row, kind in enumerate(kinds) if kind == "feature"]
    activations[features] = graph.activation_values[graph.selected_features]
    weights = dict(zip(graph.vocab_indices, graph.logit_probabilities.tolist(), strict=True))
    flow, shares = graph.influence().tolist(), graph.cumulative_influence().tolist()
    return [
        {
            "key": str(node),
            "label": label(graph, node),
            "kind": kinds[row],
            "layer": -1 if node.layer is None else node.layer,
            "position": -1 if node.position is None else node.position,
            "influence": flow[row],
            "share": shares[row],
            "activation": activations[row].item() if kinds[row] == "feature" else None,
            "weight": weights[node.index] if node.name == "output" and isinstance(node.index, int) else None,
        }
        for row, node in zip(shown.tolist(), table, strict=True)
    ]
