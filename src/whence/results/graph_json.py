"""A graph in the JSON that public viewers of attribution graphs read.

    feature    {layer}_{feature}_{position}     error    {layer}_-1_{position}
    token      E_{token}_{position}             logit    {layers + 1}_{vocabulary index}_{position}

`influence` of a node is its cumulative share: a viewer's slider keeps the nodes up to a share. Constants are nodes of
type "bias"; other writes that no feature explains are errors, told apart by a negative unit of their own. Cost: one
record a node and a link. It knows nothing of how a viewer draws.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from whence.results.graph_scores import ScoredGraph
from whence.results.graph_sheet import label
from whence.results.keys import Node
from whence.results.kinds import Kind, kind_of
from whence.results.names import RULES

_TYPES: dict[Kind, str] = {
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "token": "embedding",
    "constant": "bias",
    "rest": "mlp reconstruction error",
    "output": "logit",
}
_FIRST_EXPERT = -1000  # further down than any of the names
_SLUG_LENGTH = 60


def to_json(
    graph: ScoredGraph, path: str | Path | None = None, slug: str | None = None, legacy_ids: bool = False
) -> dict[str, Any]:
    """The document, written to a file as well when a path is given.

    Args:
        graph: The graph, pruned to what a viewer can show.
        path: The file to write.
        slug: Its name in a viewer's address; None makes one of the prompt.
        legacy_ids: Error nodes as `0_{layer}_{position}`.

    Example:
        >>> to_json(graph)["metadata"]["schema_version"]  # doctest: +SKIP
        1
    """
    nodes = _nodes(graph, legacy_ids)
    rows, columns, values = graph.weights.coo()
    document = {
        "metadata": _metadata(graph, slug or _slug(graph.prompt)),
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [
            {"source": nodes[source]["node_id"], "target": nodes[target]["node_id"], "weight": weight}
            for source, target, weight in zip(columns.tolist(), rows.tolist(), values.tolist(), strict=True)
        ],
    }
    if path is not None:
        Path(path).write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    return document


def _metadata(graph: ScoredGraph, slug: str) -> dict[str, Any]:
    said = graph.provenance
    dictionary = said.get("dictionary")
    source = dictionary.get("source") if isinstance(dictionary, dict) else dictionary
    scan = str(said.get("scan") or source or said.get("model") or "whence")
    return {
        "slug": slug,
        "scan": scan,
        "transcoder_list": [],
        "prompt_tokens": list(graph.token_texts),
        "prompt": graph.prompt,
        "node_threshold": said.get("pruned", {}).get("nodes"),
        "schema_version": 1,
        "info": {"generator": {"name": "whence", "version": version("whence")}},
    }


def _slug(prompt: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return words[:_SLUG_LENGTH].rstrip("-") or "graph"


def _nodes(graph: ScoredGraph, legacy_ids: bool) -> list[dict[str, Any]]:
    layers = graph.provenance.get("n_layers") or _layers(graph)
    kinds, shares = kind_of(graph.nodes), graph.cumulative_influence().tolist()
    activations = iter(graph.activation_values[graph.selected_features].tolist())
    probabilities = iter(graph.logit_probabilities.tolist())
    last = len(graph.input_tokens) - 1
    out: list[dict[str, Any]] = []
    first = True
    for node, kind, share in zip(graph.nodes, kinds, shares, strict=True):
        made = _identity(node, kind, layers, legacy_ids, last)
        made |= {"token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0}
        made |= {"clerp": "" if kind in ("feature", "token") and node.name != "pos_embed" else label(graph, node)}
        made |= {"influence": share, "activation": next(activations) if kind == "feature" else None}
        if kind == "output":
            probability = next(probabilities)
            text = f'Output "{_text(graph, node)}" (p={probability:.3f})'
            made |= {"token_prob": probability, "is_target_logit": first, "clerp": text, "influence": None}
            first = False
        out.append(made)
    return out


def _layers(graph: ScoredGraph) -> int:
    """How many layers there are as far as the graph knows: up to the last active feature, kept as a node or not."""
    layers = torch.cat([graph.nodes.layer, graph.active_features[:, 0], torch.tensor([-1])])
    return int(layers.max()) + 1


def _identity(node: Node, kind: Kind, layers: int, legacy_ids: bool, last: int) -> dict[str, Any]:
    """What names the node: its id, feature, layer, place and type."""
    position = node.position if node.position is not None else last if kind == "output" else 0
    unit = _unit(node)
    layer = {"output": str(layers + 1), "token": "E"}.get(kind, "E" if node.layer is None else str(node.layer))
    name, js = f"{layer}_{unit}_{position}", f"{layer}_{unit}-{position}"
    feature = unit
    if kind == "feature":
        js, feature = f"{layer}_{unit}-0", _pair(int(layer), unit)
    elif kind == "output":
        js = f"L_{unit}-{position}"
    elif kind == "token":
        feature = position
    elif unit == -1:
        name, js = f"0_{layer}_{position}" if legacy_ids else name, f"{layer}_{position}-0"
    return {
        "node_id": name,
        "feature": feature,
        "layer": layer,
        "ctx_idx": position,
        "feature_type": _TYPES[kind],
        "jsNodeId": js,
    }


def _unit(node: Node) -> int:
    """The number between the layer and the position in an id: negative, one for each name, where there is no unit."""
    if isinstance(node.index, tuple):
        return _pair(*node.index)
    if node.name == "moe.expert" and node.index is not None:
        return _FIRST_EXPERT - node.index
    if node.index is not None:
        return node.index
    return -1 if node.name in ("mlp.error", "mlp", "moe") else -2 - [*RULES].index(node.name)


def _pair(x: int, y: int) -> int:
    """One number for two: the pairing function of Cantor."""
    return (x + y) * (x + y + 1) // 2 + y


def _text(graph: ScoredGraph, node: Node) -> str:
    return next((target.token_str for target in graph.logit_targets if target.vocab_idx == node.index), "")
