import pytest
import torch

from circuits import SLOTS, random_circuit, small_circuit
from whence.results.circuit_data import CircuitData


def _numbers(circuit: CircuitData) -> dict[str, float]:
    """Every effect by node and every weight by both ends, zeros left out."""
    found = {str(node): effect for node, effect in zip(circuit.nodes, circuit.effects.tolist(), strict=True)}
    found |= {str(edge.edge): edge.weight for edge in circuit.edges(circuit.weights.nnz)}
    return {key: value for key, value in found.items() if value}


def _combined(one: CircuitData, other: CircuitData, factors: tuple[float, float]) -> dict[str, float]:
    mine, yours = _numbers(one), _numbers(other)
    return {key: factors[0] * mine.get(key, 0) + factors[1] * yours.get(key, 0) for key in mine | yours}


@pytest.mark.parametrize("slots", [(), SLOTS[:2]])
def test_a_difference_has_every_number_of_both(slots: tuple[str, ...]) -> None:
    one, other = random_circuit(0, slots), random_circuit(1, slots)
    found = one.diff(other)

    assert _numbers(found) == pytest.approx(_combined(one, other, (1, -1)), rel=1e-12)
    assert found.samples is None
    assert not _numbers(one.diff(one))


def test_a_mean_weighs_circuits_by_their_examples() -> None:
    one, other = random_circuit(0, examples=6), random_circuit(1, examples=2)
    found = CircuitData.mean([one, other])

    assert _numbers(found) == pytest.approx(_combined(one, other, (0.75, 0.25)), rel=1e-12)
    assert found.examples == 8


def test_nodes_are_in_forward_order_and_the_metric_last() -> None:
    found = random_circuit(0).diff(random_circuit(1))
    keys = [str(node) for node in found.nodes]
    sites = list(dict.fromkeys(key.rpartition(".")[0] for key in keys[:-1]))

    assert sites == [
        *("0.embed", "0.attn_out", "0.mlp_out", "0.resid_post", "1.attn_out", "1.mlp_out", "1.resid_post"),
    ]
    assert keys[-1] == "metric"
    for site in sites:
        units = [key.rpartition(":")[2] for key in keys if key.startswith(f"{site}.")]
        assert units[-1] == f"{site}.error"
        assert [int(unit) for unit in units[:-1]] == sorted(int(unit) for unit in units[:-1])


def test_circuits_with_other_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="circuits with other slots"):
        random_circuit(0).diff(random_circuit(0, SLOTS))
    with pytest.raises(ValueError, match="at least one of each"):
        CircuitData.mean([])
    with pytest.raises(ValueError, match="at least one of each"):
        CircuitData.mean([small_circuit(samples=None, examples=0)])


def test_both_origins_are_told() -> None:
    one, other = small_circuit(), small_circuit(provenance={"method": "exact"})

    difference = one.diff(other)
    assert difference.provenance == {"difference": [one.provenance, other.provenance]}
    assert "difference" not in CircuitData.mean([difference, difference]).provenance
    assert torch.equal(one.dense(), small_circuit().dense())
