"""Circuits of chosen nodes and edges, and what the model says with all else ablated, by hooks of the whole model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from circuit_oracle import Oracle
from circuit_parts import Features, Part
from whence.engine.circuits.choosing import network_of
from whence.engine.circuits.network import CircuitSite
from whence.engine.circuits.nodes import joined, table_of
from whence.engine.circuits.routes import upstream
from whence.model.model import Model
from whence.results.circuit_data import CircuitData
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights
from whence.targets.pairs import Pairs

Keep = Callable[[CircuitSite, int, int], bool]  # site, unit, slot


def some_pairs(clean: Tensor, patch: Tensor | None, **parts: Any) -> Pairs:
    """Pairs with the answers of `circuit_cases.metric`."""
    rows = [None if ids is None else tuple(map(tuple, ids.tolist())) for ids in (clean, patch)]
    return Pairs(rows[0], rows[1], (5, 6)[: len(clean)], None if patch is None else (7, 8)[: len(clean)], **parts)


def circuit_of(
    model: Model,
    dictionaries: Any,
    keep: Keep = lambda *_: True,
    slots: tuple[str, ...] = (),
    leave_out: Sequence[tuple[str, str]] = (),
    edges: bool = True,
) -> CircuitData:
    """A circuit of the units to keep and all direct edges between them but those of these prefixes, all of weight 1."""
    network = network_of(model, dictionaries)
    tables: list[NodeTable] = []
    site_of: list[int] = []
    for number, site in enumerate(network.sites):
        places = [
            (unit, slot)
            for unit in range(site.units.count)
            for slot in range(len(slots) or 1)
            if keep(site, unit, slot)
        ]
        unit, slot = torch.tensor(places, dtype=torch.long).reshape(-1, 2).T
        tables.append(table_of(site, unit, slot if slots else None))
        site_of += [number] * len(places)
    nodes = joined([*tables, NodeTable.from_nodes([Node("metric")])])
    parents = [[network.sites.index(up) for up in upstream(network, site)[1]] for site in (*network.sites, None)]
    at, n = torch.tensor([*site_of, len(network.sites)]), len(nodes)
    near = torch.zeros(len(parents), len(parents))
    for number, found in enumerate(parents):
        near[number, found] = 1.0
    weights = near[at][:, at] if edges else torch.zeros(n, n)
    names = [str(node) for node in nodes]
    for up, down in leave_out:
        rows, columns = ([i for i, name in enumerate(names) if name.startswith(end)] for end in (down, up))
        assert rows
        assert columns
        weights[torch.tensor(rows)[:, None], torch.tensor(columns)] = 0.0
    effects = torch.arange(n, 0, -1, dtype=torch.float64)
    return CircuitData(nodes, effects, Weights.from_dense(weights.double()), slots, 2)


def split(part: Part, own: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Features and error of an SAE's site."""
    assert isinstance(part.split, Features)
    features, vectors = part.split.said(own, own if read is None else read)
    return features, vectors[..., 0, :]


def join(part: Part, features: Tensor, error: Tensor) -> Tensor:
    """The vector of an SAE's site."""
    return features @ part.split.of.W_dec + part.split.of.b_dec + error


def ablated(
    slow: Oracle, ids: Tensor, gone: dict[str, tuple[Tensor, Tensor]], kept: Callable[[str], tuple[Tensor, Tensor]]
) -> Tensor:
    """The metric with the features and the error of every SAE's site mixed with `gone` where they are not kept."""

    def edit(part: Part, x: Tensor) -> Tensor | None:
        if part.key not in gone:
            return None
        features, error = split(part, x)
        keep, keep_error = kept(part.key)
        none, no_error = gone[part.key]
        return join(part, torch.where(keep, features, none), torch.where(keep_error[..., None], error, no_error))

    with torch.no_grad():
        return slow.run(ids, edit)


def gone_values(slow: Oracle, other: Tensor, kind: str) -> dict[str, tuple[Tensor, Tensor]]:
    """What features and errors are ablated to; the mean is over both prompts, position by position."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in slow.parts:
        if isinstance(part.split, Features):
            said = split(part, slow.values(other)[part.key][0])
            if kind == "mean":
                said = tuple(one.mean(0, keepdim=True).expand_as(one) for one in said)
            found[part.key] = tuple(torch.zeros_like(one) for one in said) if kind == "zero" else said
    return found
