"""Random graphs with layers, positions and every kind of node, for tests that need no model."""

from dataclasses import replace

import torch
from torch import Tensor

from whence.results.certificate import Certificate
from whence.results.graph import Graph
from whence.results.keys import LogitTarget, Node
from whence.results.nodes import NodeTable
from whence.results.weights import Block, Weights

TEXTS = ("<s>", "The", " capital", " of", " Texas", " is")
VOCABULARY = 50


def layered(
    seed: int = 0,
    layers: int = 3,
    positions: int = 4,
    most: int = 3,
    density: float = 0.7,
    parity: bool = False,
    dtype: torch.dtype = torch.float64,
    logits: int = 2,
) -> Graph:
    """A graph of random edges; with `parity` it has exactly features, errors, tokens and logits."""
    random = torch.Generator().manual_seed(seed)
    active = _active(random, layers, positions, most)
    nodes = _nodes(active, layers, positions, parity, logits)
    weights = _weights(nodes, density, dtype, random)
    probabilities = torch.rand(logits, generator=random, dtype=dtype) * 0.5 + 0.1
    sums = weights.dense().sum(1)
    rows = weights.row_abs_sums().nonzero().reshape(-1)
    return Graph(
        nodes=nodes,
        weights=weights,
        logit_targets=tuple(LogitTarget(f" word{10 + i}", 10 + i) for i in range(logits)),
        logit_probabilities=probabilities,
        vocab_size=VOCABULARY,
        prompt="".join(_texts(positions)[1:]),
        input_tokens=torch.arange(positions),
        token_texts=_texts(positions),
        active_features=torch.cat([active, active.new_tensor([[layers - 1, positions - 1, 99]])]),
        activation_values=torch.rand(len(active) + 1, generator=random, dtype=dtype),
        selected_features=torch.arange(len(active)),
        certificate=Certificate(rows, sums[rows], sums[rows].abs() * 1e-8, weights.row_abs_sums()[rows]),
        provenance={"method": "attribution_graph", "convention": "circuit-tracer" if parity else "whence"},
    )


def reweighted(graph: Graph, weights: torch.Tensor) -> Graph:
    return replace(graph, weights=Weights.from_dense(weights))


def _texts(positions: int) -> tuple[str, ...]:
    return tuple(TEXTS[i % len(TEXTS)] for i in range(positions))


def _active(random: torch.Generator, layers: int, positions: int, most: int) -> torch.Tensor:
    found = [
        (layer, position, feature)
        for layer in range(layers)
        for position in range(1, positions)
        for feature in sorted(torch.randperm(40, generator=random)[:most].tolist())
    ]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def _nodes(active: torch.Tensor, layers: int, positions: int, parity: bool, logits: int) -> NodeTable:
    nodes = [Node("mlp.feature", layer, feature, position=position) for layer, position, feature in active.tolist()]
    for layer in range(layers):
        nodes += [] if parity else [Node("mlp", layer, position=0)]
        nodes += [Node("mlp.error", layer, position=position) for position in range(0 if parity else 1, positions)]
    nodes += [Node("embed", index=position, position=position) for position in range(positions)]
    if not parity:
        nodes += [Node("pos_embed", position=position) for position in range(positions)]
        nodes += [Node("rest"), Node("bias")]
    nodes += [Node("output", index=10 + i, position=positions - 1) for i in range(logits)]
    return NodeTable.from_nodes(nodes)


def _weights(nodes: NodeTable, density: float, dtype: torch.dtype, random: torch.Generator) -> Weights:
    """One block for each layer and position; a source is a node of a lower layer at no later position."""
    outputs = nodes.of("output")
    depth = nodes.layer.clone()
    depth[outputs] = 1000
    rows = torch.cat([nodes.of("mlp.feature"), outputs])
    blocks: list[Block] = []
    for place in torch.stack([depth[rows], nodes.position[rows]]).unique(dim=1).T:
        group = rows[(depth[rows] == place[0]) & (nodes.position[rows] == place[1])]
        sources = ((depth < place[0]) & (nodes.position <= place[1])).nonzero().reshape(-1)
        values = torch.randn(len(group), len(sources), generator=random, dtype=dtype)
        kept = torch.rand(values.shape, generator=random) < density
        blocks.append(Block(group, sources, values * kept))
    return Weights((len(nodes), len(nodes)), blocks)


def normalised(matrix: Tensor) -> Tensor:
    """Each row's sizes as shares of their sum."""
    return matrix.abs() / matrix.abs().sum(1, keepdim=True).clamp_min(1e-10)


def power_series(matrix: Tensor, weights: Tensor) -> Tensor:
    """w Â + w Â² + …, term by term until a term is exactly 0: the oracle of influence."""
    total = term = weights @ normalised(matrix)
    while term.any():
        term = term @ normalised(matrix)
        total = total + term
    return total
