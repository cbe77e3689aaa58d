"""Small circuits by hand and by chance, for tests that need no model."""

from typing import Any

import torch
from torch import Tensor

from whence.results.circuit_data import CircuitData
from whence.results.circuit_samples import Samples
from whence.results.circuit_sites import forward_order
from whence.results.keys import Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

SLOTS = ("The", "subject", "that", "the", "distractor", "verb")
SITES = ("0.embed", "0.attn_out", "0.mlp_out", "0.resid_post", "1.attn_out", "1.mlp_out", "1.resid_post")


def table(*keys: str) -> NodeTable:
    return NodeTable.from_nodes(map(Node.parse, keys))


def small_circuit(**changes: Any) -> CircuitData:
    """Four nodes by hand: an embedding feature through an MLP feature and an error to the metric; two examples."""
    nodes = table("0.mlp_out.feature:3", "0.mlp_out.error", "1.resid_post.feature:7", "metric")
    weights = torch.zeros(4, 4, dtype=torch.float64)
    weights[2, 0], weights[2, 1], weights[3, 2], weights[3, 0] = 0.5, -0.25, 2.0, 0.125
    samples = Samples(
        candidates=table("0.mlp_out.feature:3", "0.mlp_out.feature:4", "0.mlp_out.error", "1.resid_post.feature:7"),
        example=torch.tensor([0, 1, 0, 0, 1, 0, 1]),
        candidate=torch.tensor([0, 0, 1, 2, 2, 3, 3]),
        effect=torch.tensor([1.0, 0.25, 0.125, -0.5, 0.0, 1.0, 3.0]),
        target=torch.tensor([2, 2, 3, 3]),
        source=torch.tensor([0, 1, 2, 0]),
        edge=torch.tensor([[1.0, -0.5, 1.0, 0.25], [0.0, 0.0, 3.0, 0.0]]),
        total=torch.tensor([2.0, 2.0], dtype=torch.float64),
    )
    parts: dict[str, Any] = {
        "nodes": nodes,
        "effects": torch.tensor([0.625, -0.25, 2.0, 2.0], dtype=torch.float64),
        "weights": Weights.from_dense(weights),
        "slots": (),
        "examples": 2,
        "samples": samples,
        "provenance": {"method": "gradient", "thresholds": {"node": 0.1, "edge": 0.01}},
    }
    return CircuitData(**(parts | changes))


def random_circuit(
    seed: int = 0,
    slots: tuple[str, ...] = (),
    units: int = 3,
    examples: int = 8,
    sites: tuple[str, ...] = SITES,
    density: float = 0.6,
) -> CircuitData:
    """Features and an error at each site; random effects and edges forward in sites; effects are the samples' means."""
    random = torch.Generator().manual_seed(seed)
    keys = [
        f"{site}.{unit}{slot}"
        for site in sites
        for unit in (*(f"feature:{int(i)}" for i in torch.randperm(60, generator=random)[:units]), "error")
        for slot in ([f"@{i}" for i in range(len(slots))] if slots else [""])
    ]
    nodes = table(*keys, "metric")
    nodes = nodes.select(forward_order(nodes))
    n = len(nodes) - 1
    effects = torch.randn(examples, n, generator=random) ** 3
    target, source = (_forward(nodes) & (torch.rand(n + 1, n + 1, generator=random) < density)).nonzero(as_tuple=True)
    edge = torch.randn(examples, len(target), generator=random) ** 3
    example, candidate = effects.nonzero(as_tuple=True)
    total = effects.double().sum(1)
    shape = (n + 1, n + 1)
    samples = Samples(
        nodes.select(torch.arange(n)), example, candidate, effects[example, candidate], target, source, edge, total
    )
    return CircuitData(
        nodes=nodes,
        effects=torch.cat([effects.double().mean(0), total.mean()[None]]),
        weights=Weights.from_coo(target, source, edge.double().mean(0), shape),
        slots=slots,
        examples=examples,
        samples=samples,
        provenance={"metric": "is − are", "method": "gradient", "thresholds": {"node": 0.0, "edge": 0.0}},
    )


def _forward(nodes: NodeTable) -> Tensor:
    """[target, source]: the target's site is behind the source's, and its position not before."""
    names = [str(node).partition("@")[0].rpartition(".")[0] for node in nodes]
    site = torch.tensor([names.index(name) for name in names])
    site[-1] = len(names)
    position = nodes.position.clone()
    position[-1] = position.max()
    return (site[:, None] > site[None]) & (position[:, None] >= position[None])
