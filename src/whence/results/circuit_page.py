"""A circuit in the page that graphs open in: sites from below, slots or kinds of sites side by side.

Everything reaches the page as text. Cost: one record a node and an edge shown.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from whence.results.circuit_layout import by_site
from whence.results.circuit_parts import CircuitParts
from whence.results.circuit_sheet import label, notes, size, title
from whence.results.edges import strongest_entries
from whence.results.graph_page import filled, listed, said_cut
from whence.results.keys import Node
from whence.results.sheet import number_format

_SHAPES = {"feature": "circle", "error": "triangle", "token": "diamond", "output": "diamond", "whole": "square"}
_LEGEND = {"feature": "unit", "error": "error", "whole": "whole output", "token": "embedding", "output": "metric"}


def write_page(circuit: CircuitParts, path: str | Path, nodes: int = 400, edges: int = 4000) -> Path:
    """The file written.

    Args:
        circuit: The circuit.
        path: The file.
        nodes: At most so many nodes, those with the largest effects; the metric always.
        edges: At most so many edges among them, the strongest.

    Example:
        >>> write_page(circuit, "agreement.html")  # doctest: +SKIP
        PosixPath('agreement.html')
    """
    Path(path).write_text(filled(content(circuit, nodes, edges)), encoding="utf-8")
    return Path(path)


def content(circuit: CircuitParts, nodes: int, edges: int) -> dict[str, Any]:
    """What the page shows.

    Args:
        circuit: The circuit.
        nodes: At most so many nodes.
        edges: At most so many edges among them.
    """
    shares = _shares(circuit)
    order = shares.argsort(stable=True)  # the metric, whose share is 0, is first
    shown = order[: max(1, nodes)].sort().values
    among = circuit.weights.select(shown)
    rows, columns, values = strongest_entries(among, [block.values.abs() for block in among], edges)
    hidden = len(shown) < len(circuit.nodes), len(rows) < among.nnz
    cut = said_cut(
        f"{len(shown):,} nodes with the largest effects" if hidden[0] else "", len(rows) if hidden[1] else None
    )
    layout = by_site(circuit)
    found = _nodes(circuit, shown, shares, layout.cells)
    kinds = {node["kind"] for node in found}
    return {
        "title": title(circuit),
        "lines": [f"{size(circuit)}{cut}", "; ".join(notes(circuit))],
        "columns": list(layout.columns),
        "numbered": bool(circuit.slots),
        "rows": list(layout.rows),
        "measure": "of the sizes of all effects",
        "extras": "errors",
        "marks": _SHAPES,
        "legend": [[kind, text] for kind, text in _LEGEND.items() if kind in kinds],
        "nodes": found,
        "edges": listed(rows, columns, values),
    }


def kind_of(node: Node) -> str:
    """What a node is in a picture: a unit, an error, an embedding, the metric or a whole output.

    Args:
        node: A node of a circuit.
    """
    if node.name.endswith(".error"):
        return "error"
    if node.name == "metric":
        return "output"
    if node.name in ("embed", "pos_embed"):
        return "token"
    return "feature" if node.index is not None else "whole"


def _shares(circuit: CircuitParts) -> Float64[Tensor, " node"]:
    """For each node, the share of the sizes of all effects that it and stronger nodes have."""
    sizes = circuit.effects[:-1].abs()
    order = sizes.argsort(descending=True, stable=True)
    out = torch.zeros(len(circuit.nodes), dtype=torch.float64)
    out[order] = sizes[order].cumsum(0) / sizes.sum().clamp(min=1e-300)
    return out


def _nodes(
    circuit: CircuitParts,
    shown: Int[Tensor, " shown"],
    shares: Float64[Tensor, " node"],
    cells: tuple[tuple[int, int], ...],
) -> list[dict[str, Any]]:
    show = number_format(float(circuit.effects.abs().max()))
    explained = circuit.explained.tolist()
    out: list[dict[str, Any]] = []
    for place, node in zip(shown.tolist(), circuit.nodes.select(shown), strict=True):
        effect, kind = show(float(circuit.effects[place])), kind_of(node)
        record = {"key": str(node), "label": label(circuit, node), "kind": kind, "what": _what(node)}
        record |= {"row": cells[place][0], "column": cells[place][1], "share": float(shares[place])}
        record["notes"] = _notes(circuit, node, effect, explained[place])
        record["beside"] = f"metric  {effect}" if kind == "output" else ""
        out.append(record)
    return out


def _notes(circuit: CircuitParts, node: Node, effect: str, explained: float) -> list[str]:
    said = [f"total effect {effect}" if node.name == "metric" else f"effect {effect}"]
    said += [f"{explained:.0%} of it in the edges out"] if circuit.weights.nnz and explained == explained else []
    return said + ([f"at {circuit.slots[node.position]}"] if node.position is not None else [])


def _what(node: Node) -> str:
    last = node.name.rpartition(".")[2]
    return f"{node.end} of a {last}" if node.end else last if "." in node.name else _LEGEND[kind_of(node)]
