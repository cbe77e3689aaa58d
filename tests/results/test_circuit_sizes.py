"""Parts by threshold and by share."""

import pytest
import torch

from circuits import random_circuit, small_circuit, table
from whence.results.circuit_data import CircuitData
from whence.results.circuit_sizes import above, inside, largest, size
from whence.results.weights import Weights


def test_thresholds_cut_nodes_or_edges() -> None:
    circuit = small_circuit()
    assert [str(node) for node in above(circuit, 0.5, edges=False).nodes][:-1] == [
        "0.mlp_out.feature:3",
        "1.resid_post.feature:7",
    ]
    cut = above(circuit, 0.2, edges=True)
    assert (len(cut.nodes), cut.weights.nnz) == (4, 3)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 1.0])
def test_the_largest_part_has_that_share_and_nothing_larger_outside(share: float) -> None:
    circuit = random_circuit(3)
    part = largest(circuit, share, edges=True)
    assert size(part, edges=True) == round(share * circuit.weights.nnz)
    kept, every = part.weights.dense().abs(), circuit.weights.dense().abs()
    outside = every[kept == 0]
    if 0 < share < 1:
        assert float(kept[kept > 0].min()) >= float(outside.max())
    assert torch.equal(kept[kept > 0], every[kept > 0])
    nodes = largest(circuit, share, edges=False)
    assert size(nodes, edges=False) == round(share * (len(circuit.nodes) - 1))


def test_edges_from_ends_to_their_head_are_kept_and_not_counted() -> None:
    nodes = table("embed", "0.attn.head:1", "0.attn.head:1.q", "0.attn.head:1.v", "metric")
    weights = torch.zeros(5, 5, dtype=torch.float64)
    weights[2, 0], weights[3, 0], weights[1, 2], weights[1, 3], weights[4, 1], weights[4, 0] = 3, 2, 0.1, 0.2, 1, 0.5
    circuit = CircuitData(nodes, torch.ones(5, dtype=torch.float64), Weights.from_dense(weights), (), 1)
    assert size(circuit, edges=True) == 4
    part = largest(circuit, 0.5, edges=True)
    assert [str(edge.edge) for edge in part.edges(9)] == [
        "embed -> 0.attn.head:1.q",
        "embed -> 0.attn.head:1.v",
        "0.attn.head:1.v -> 0.attn.head:1",
        "0.attn.head:1.q -> 0.attn.head:1",
    ]
    target, source, _ = part.weights.coo()
    assert int(inside(part, target, source).sum()) == 2


def test_a_share_is_between_nothing_and_everything() -> None:
    with pytest.raises(ValueError, match=r"sizes= has 1\.5"):
        largest(small_circuit(), 1.5, edges=False)
