"""Circuits over heads and MLPs as MIB's edge files, and back.

    MIB      input      a0.h1          m0       logits      a0.h1->a3.h2<q>
    whence   embed      0.attn.head:1  0.mlp    metric      0.attn.head:1 -> 3.attn.head:2.q

A file holds every edge of the architecture, a score each and whether it is in the circuit; a circuit holds its edges
only, so an edge of score 0 is none. An end such as 3.attn.head:2.q leads to its head by an edge that is not in the
file; its weight is the end's effect: the sum of what reaches it. Cost: all edges of the architecture, once.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.errors import FileFormatError
from whence.results.circuit_mib_keys import Sizes, key_of, name_of
from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.circuit_sites import forward_order
from whence.results.keys import Edge, Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


def read(kind: type[AnyCircuit], path: str | Path, selected: bool) -> AnyCircuit:
    """The circuit in a file.

    Args:
        kind: The class of the circuit.
        path: The file.
        selected: Only what the file marks as in the circuit; else every edge with its score.

    Raises:
        FileFormatError: No such file of MIB's.

    Example:
        >>> read(CircuitData, "importances.json", False).edges(3)  # doctest: +SKIP
    """
    if Path(path).suffix in (".pt", ".pth"):
        raise FileFormatError(f"{path} is a pickle, which could run anything when it is read. Write it as .json first.")
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        return _circuit(kind, said, selected)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path} is no edge file of MIB's: {type(error).__name__}: {error}.") from error


def write(circuit: CircuitParts, path: str | Path, scores: CircuitParts | None, cfg: Mapping[str, Any] | None) -> Path:
    """The file written: every edge of the architecture, those of the circuit marked.

    Args:
        circuit: The circuit; positions summed.
        path: The file.
        scores: Where the scores of edges come from that the circuit does not have; None writes 0 for them.
        cfg: n_layers, n_heads, parallel_attn_mlp, d_model; None where the circuit came from such a file.

    Raises:
        ValueError: No sizes, positions, edges into whole heads, or a node or an edge that the architecture has not.

    Example:
        >>> write(circuit.threshold(edge=0.1), "circuit.json", circuit, None)  # doctest: +SKIP
    """
    sizes = Sizes.of(circuit.provenance.get("cfg") if cfg is None else cfg)
    scored = circuit if scores is None else scores
    kept, weight = _edges(circuit), _edges(scored)
    edges = {edge: {"score": weight.get(edge, 0.0), "in_graph": edge in kept} for edge in sizes.edges()}
    effects = _effects(scored)
    there = _effects(circuit)
    names = sizes.nodes()
    strangers = [*(kept.keys() | weight.keys()) - edges.keys(), *(there.keys() | effects.keys()) - set(names)]
    if strangers:
        raise ValueError(
            f"{', '.join(sorted(strangers)[:3])}: a model with {sizes.n_layers} layers of {sizes.n_heads} heads has no "
            "such node or edge. Give the cfg of the circuit's model."
        )
    valued = scored.provenance.get("node_scores", True)
    nodes = {n: {"in_graph": n in there} | ({"score": effects.get(n, 0.0)} if valued else {}) for n in names}
    text = json.dumps({"cfg": sizes.cfg, "nodes": nodes, "edges": edges})
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def _circuit(kind: type[AnyCircuit], said: dict[str, Any], selected: bool) -> AnyCircuit:
    sizes = Sizes.of(said["cfg"])
    edges = {edge: entry for edge, entry in said["edges"].items() if entry["in_graph"] or not selected}
    ends = [tuple(key_of(name) for name in edge.split("->")) for edge in edges]
    scores = torch.tensor([entry["score"] or 0.0 for entry in edges.values()], dtype=torch.float64)
    named = [key_of(name) for name, entry in said["nodes"].items() if entry["in_graph"] or not selected]
    keys = dict.fromkeys([*named, *(key for pair in ends for key in pair), "metric"])
    nodes = NodeTable.from_nodes(map(Node.parse, keys))
    nodes = nodes.select(forward_order(nodes))
    row = {str(node): place for place, node in enumerate(nodes)}
    source, target = (torch.tensor([row[pair[end]] for pair in ends], dtype=torch.int64) for end in (0, 1))
    weights = Weights.from_coo(target, source, scores, (len(nodes), len(nodes)))
    given = {key_of(name): entry["score"] for name, entry in said["nodes"].items() if entry.get("score") is not None}
    effects, weights = _completed(nodes, weights, given)
    provenance = {"method": "imported", "cfg": sizes.cfg, "node_scores": bool(given), "selected": selected}
    return kind(nodes=nodes, effects=effects, weights=weights, slots=(), examples=0, provenance=provenance)


def _completed(nodes: NodeTable, weights: Weights, given: dict[str, float]) -> tuple[Tensor, Weights]:
    """The effects, and the edges with those from ends to heads: an end has what reaches it, a node what leaves it."""
    ones = torch.ones(len(nodes), dtype=torch.float64)
    ends = (nodes.end >= 0).nonzero().reshape(-1)
    into, out = weights.matvec(ones), weights.rmatvec(ones)
    effects = torch.where(nodes.end >= 0, into, out)
    effects[-1] = into[-1]
    for place, node in enumerate(nodes):
        effects[place] = given.get(str(node), effects[place])
    heads = [nodes.find(str(nodes[place]).rpartition(".")[0]) for place in ends.tolist()]
    rows, columns, values = weights.coo()
    every = (torch.cat([rows, torch.tensor(heads, dtype=torch.int64)]), torch.cat([columns, ends]))
    return effects, Weights.from_coo(*every, torch.cat([values.double(), effects[ends]]), weights.shape)


def _edges(circuit: CircuitParts) -> dict[str, float]:
    """Each edge that the file holds, and its weight."""
    rows, columns, values = circuit.weights.coo()
    keys = [name_of(node) for node in circuit.nodes]
    inner = circuit.nodes.end[columns] >= 0
    found = [*zip(columns[~inner].tolist(), rows[~inner].tolist(), values[~inner].tolist(), strict=True)]
    for source, target, _ in found:
        _refuse_whole_head(Edge(circuit.nodes[source], circuit.nodes[target]))
    return {f"{keys[source]}->{keys[target]}": weight for source, target, weight in found}


def _refuse_whole_head(edge: Edge) -> None:
    if edge.target.name == "attn.head" and edge.target.end is None:
        raise ValueError(
            f"'{edge}' leads to a head as a whole, and MIB's edge files have edges into its query, key and value. Find "
            "these with whence.edge_attribution(..., by_input=True)."
        )


def _effects(circuit: CircuitParts) -> dict[str, float]:
    """Each node that the file holds, and its effect."""
    nodes: Iterator[tuple[Node, float]] = zip(circuit.nodes, circuit.effects.tolist(), strict=True)
    return {name_of(node): effect for node, effect in nodes if node.end is None}
