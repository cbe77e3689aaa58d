"""Where the nodes of a circuit stand in a picture: by slot and site, or by kind of site and layer.

Cost: one look at each node. It knows nothing of how anything is drawn.
"""

from dataclasses import dataclass, replace

import torch

from whence.results.circuit_parts import AnyCircuit, CircuitParts
from whence.results.circuit_sites import COLUMNS, Site, forward_order, site_of
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.union import union
from whence.results.weights import Weights

_HOME = {"embed": "resid", "metric": "resid"}  # what begins and ends the residual stream stands in its column


@dataclass(frozen=True)
class Layout:
    """Names of columns from the left and of rows from below, and the row and column of each node."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[int, int], ...]


def by_site(circuit: CircuitParts) -> Layout:
    """Rows are sites; columns are slots, or kinds of sites where positions are summed.

    Args:
        circuit: The circuit.
    """
    sites = sorted({site_of(node) for node in circuit.nodes})
    row = {site: place for place, site in enumerate(sites)}
    kinds = _kinds(circuit)
    last = len(circuit.slots) - 1

    def column(node: Node) -> int:
        if circuit.slots:
            return last if node.position is None else node.position
        return kinds.index(_kind(node, kinds))

    cells = tuple((row[site_of(node)], column(node)) for node in circuit.nodes)
    return Layout(circuit.slots or kinds, tuple(site.title for site in sites), cells)


def by_layer(circuit: CircuitParts) -> Layout:
    """Rows are layers, between what begins and what ends the circuit; columns are kinds of sites.

    Args:
        circuit: The circuit.
    """
    kinds = _kinds(circuit)
    sites = [site_of(node) for node in circuit.nodes]
    layers = sorted({site.layer for site in sites if site.column not in _HOME})
    row = {layer: place + 1 for place, layer in enumerate(layers)}

    def cell(node: Node, site: Site) -> tuple[int, int]:
        ends = len(layers) + 1 if site.stem == "metric" else 0
        return row.get(site.layer, ends), kinds.index(_kind(node, kinds))

    rows = ("embed", *(f"layer {layer}" for layer in layers), "metric")
    return Layout(kinds, rows, tuple(map(cell, circuit.nodes, sites)))


def summed(circuit: AnyCircuit) -> AnyCircuit:
    """The circuit with effects and edges summed over positions; samples are left out.

    Args:
        circuit: The circuit.
    """
    columns = circuit.nodes.columns()
    columns[4] = -1
    nodes, (place,) = union([NodeTable.from_columns(circuit.nodes.names, columns)], forward_order)
    effects = torch.zeros(len(nodes), dtype=torch.float64).index_add_(0, place, circuit.effects)
    rows, sources, values = circuit.weights.coo()
    weights = Weights.from_coo(place[rows], place[sources], values, (len(nodes), len(nodes)))
    return replace(circuit, nodes=nodes, effects=effects, weights=weights, slots=(), samples=None)


def _kinds(circuit: CircuitParts) -> tuple[str, ...]:
    found = {site_of(node).column for node in circuit.nodes}
    return tuple(kind for kind in COLUMNS if kind in found and kind not in _HOME) or ("resid",)


def _kind(node: Node, kinds: tuple[str, ...]) -> str:
    kind = site_of(node).column
    home = _HOME.get(kind, kind)
    return home if home in kinds else kinds[-1]
