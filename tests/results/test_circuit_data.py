"""Circuits as data: what fits together, smaller ones, their folders and tables."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import SLOTS, random_circuit, small_circuit, table
from whence.errors import FileFormatError
from whence.results.circuit_data import CircuitData
from whence.results.circuit_files import check_table
from whence.results.circuit_samples import Samples
from whence.results.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisWarning")
PARTS = ("example", "candidate", "effect", "target", "source", "edge", "total")


@dataclass(frozen=True, eq=False, repr=False)
class Richer(CircuitData):
    """A subclass, as the one that needs a model."""


def _same(one: CircuitData, other: CircuitData) -> None:
    assert [*one.nodes] == [*other.nodes]
    assert torch.equal(one.effects, other.effects)
    assert torch.equal(one.dense(), other.dense())
    assert one.dense().dtype == other.dense().dtype
    for name in ("slots", "examples", "provenance", "names"):
        assert getattr(one, name) == getattr(other, name), name
    _same_samples(one.samples, other.samples)


def _same_samples(one: Samples | None, other: Samples | None) -> None:
    if one is None or other is None:
        assert one is other
        return
    assert [*one.candidates] == [*other.candidates]
    for name in PARTS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def _keys(circuit: CircuitData) -> list[str]:
    return [str(node) for node in circuit.nodes]


@pytest.mark.parametrize("slots", [(), SLOTS])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, slots: tuple[str, ...]) -> None:
    circuit = replace(random_circuit(1, slots, units=2), names={"0.mlp_out.feature:3": "<b>plural</b>"})

    _same(CircuitData.load(circuit.save(tmp_path / "circuit")), circuit)


def test_a_circuit_without_edges_and_samples_comes_back(tmp_path: Path) -> None:
    circuit = small_circuit(samples=None, weights=Weights((4, 4), ()))

    _same(CircuitData.load(circuit.save(tmp_path / "circuit")), circuit)


def test_ends_of_heads_come_back(tmp_path: Path) -> None:
    nodes = table("embed", "0.attn.head:1.q", "0.attn.head:1.v", "0.attn.head:1", "metric")
    circuit = CircuitData(nodes, torch.ones(5, dtype=torch.float64), Weights((5, 5), ()), (), 1)

    assert _keys(CircuitData.load(circuit.save(tmp_path / "circuit"))) == _keys(circuit)


def test_edges_and_samples_are_read_when_they_are_used_and_not_before(tmp_path: Path) -> None:
    path = random_circuit(1).save(tmp_path / "circuit")
    (large,) = path.glob("large-*")
    large.rename(path / "elsewhere")

    circuit = CircuitData.load(path)

    assert repr(circuit) == repr(random_circuit(1))
    assert circuit.samples is not None
    assert repr(circuit.samples) == repr(random_circuit(1).samples)
    with pytest.raises(FileFormatError, match="is missing"):
        _ = circuit.samples.effect
    (path / "elsewhere").rename(large)
    _same(circuit, random_circuit(1))


def test_another_result_is_no_circuit(tmp_path: Path) -> None:
    path = small_circuit().save(tmp_path / "circuit")
    from whence.results.graph import Graph

    with pytest.raises(FileFormatError, match="of kind 'circuit', and 'graph' is wanted"):
        Graph.load(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": table("0.mlp", "1.mlp", "2.mlp", "3.mlp")}, "'metric' must be the last of the 4 nodes"),
        ({"nodes": table("0.mlp", "metric", "2.mlp", "metric")}, "and be there once"),
        ({"effects": torch.zeros(3, dtype=torch.float64)}, "effects has 3, and 4 is called for"),
        ({"weights": Weights((3, 3), ())}, r"weights has \(3, 3\), and \(4, 4\)"),
        ({"examples": 3}, "samples.total has 2, and 3 is called for"),
        ({"slots": ("a", "b")}, "positions -1 to -1, and the circuit has the slots 0 to 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_circuit(**changes)


def test_positions_without_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="no slots, so no node has a position"):
        replace(random_circuit(0, SLOTS), slots=())


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("example", torch.tensor([0, 1, 0, 0, 1, 0, 2]), "example reaches 2, and there are 2"),
        ("candidate", torch.tensor([0, 0, 1, 2, 2, 3, 4]), "candidate reaches 4, and there are 4"),
        ("edge", torch.zeros(2, 3), r"shape \(2, 3\), and 2 examples × 4 edges"),
    ],
)
def test_samples_that_do_not_fit_are_refused(part: str, value: torch.Tensor, said: str) -> None:
    samples = small_circuit().samples
    assert samples is not None
    with pytest.raises(ValueError, match=said):
        replace(samples, **{part: value})


def test_edges_between_nodes_that_are_not_there_are_refused() -> None:
    samples = small_circuit().samples
    assert samples is not None
    with pytest.raises(ValueError, match="ends at node 4, and the circuit has 4"):
        small_circuit(samples=replace(samples, target=torch.tensor([2, 2, 4, 3])))


def test_explained_is_the_share_of_an_effect_that_edges_carry() -> None:
    # 0.625 = 0.5 + 0.125; −0.25 = −0.25; 2 = 2; nothing leads on from the metric
    assert small_circuit().explained[:3].tolist() == [1.0, 1.0, 1.0]
    assert small_circuit().explained[3].isnan()
    half = small_circuit(effects=torch.tensor([1.25, 0.0, 2.0, 2.0], dtype=torch.float64)).explained
    assert half[0] == 0.5
    assert half[1].isnan()


def test_edges_come_by_size_and_by_node() -> None:
    circuit = small_circuit()

    assert [edge.weight for edge in circuit.edges(2)] == [2.0, 0.5]
    assert [edge.weight for edge in circuit.edges(9)] == [2.0, 0.5, -0.25, 0.125]
    assert [str(edge.source) for edge in circuit.into("metric")] == ["1.resid_post.feature:7", "0.mlp_out.feature:3"]
    assert [edge.weight for edge in circuit.out_of("0.mlp_out.feature:3")] == [0.5, 0.125]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 2), st.floats(0, 2))
def test_a_threshold_keeps_what_exceeds_it(seed: int, node: float, edge: float) -> None:
    circuit = random_circuit(seed)
    small = circuit.threshold(node=node, edge=edge)
    keys, dense = _keys(circuit), circuit.dense()
    kept = [row for row, effect in enumerate(circuit.effects.tolist()) if abs(effect) > node or keys[row] == "metric"]

    assert _keys(small) == [keys[row] for row in kept]
    assert torch.equal(small.effects, circuit.effects[kept])
    among = dense[kept][:, kept]
    assert torch.equal(small.dense(), torch.where(among.abs() > edge, among, 0.0).to(small.dense().dtype))
    assert small.provenance["thresholds"] == {"node": node, "edge": edge}


def test_samples_follow_the_nodes_that_stay() -> None:
    small = small_circuit().threshold(node=0.5)
    assert small.samples is not None

    ends = zip(small.samples.source.tolist(), small.samples.target.tolist(), strict=True)
    keys = _keys(small)
    assert [(keys[source], keys[target]) for source, target in ends] == [
        ("0.mlp_out.feature:3", "1.resid_post.feature:7"),
        ("1.resid_post.feature:7", "metric"),
        ("0.mlp_out.feature:3", "metric"),
    ]
    assert small.samples.edge.tolist() == [[1.0, 1.0, 0.25], [0.0, 3.0, 0.0]]
    assert len(small.samples.candidates) == 4


def test_top_keeps_the_strongest_and_the_metric() -> None:
    assert _keys(small_circuit().top(1)) == ["1.resid_post.feature:7", "metric"]
    assert _keys(small_circuit().top(0)) == ["metric"]
    with pytest.raises(ValueError, match="0 or more"):
        small_circuit().top(-1)


@pytest.mark.parametrize("given", [{"node": -0.1}, {"edge": float("nan")}])
def test_a_threshold_that_is_no_size_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a threshold is 0 or more"):
        small_circuit().threshold(**given)


@pytest.mark.parametrize(
    "make",
    [
        lambda c: c.threshold(node=0.1),
        lambda c: c.top(2),
        lambda c: c.summed(),
        lambda c: c.diff(c),
        lambda c: type(c).mean([c, c]),
        lambda c: c.annotate({"0.mlp_out.feature:3": "plural"}),
    ],
)
def test_a_circuit_made_from_one_of_a_subclass_is_of_that_subclass(make: Callable[[CircuitData], CircuitData]) -> None:
    circuit = small_circuit()
    before = circuit.dense().clone()
    made = make(Richer(**{name: getattr(circuit, name) for name in CircuitData.__dataclass_fields__}))

    assert type(made) is Richer
    assert torch.equal(circuit.dense(), before)


def test_sums_over_positions_are_the_sums_of_their_numbers() -> None:
    circuit = random_circuit(2, SLOTS, units=2)
    summed = circuit.summed()
    home = [_keys(summed).index(key.partition("@")[0]) for key in _keys(circuit)]
    effects, dense = torch.zeros(len(summed.nodes)).double(), torch.zeros(2 * (len(summed.nodes),)).double()
    for row, place in enumerate(home):
        effects[place] += circuit.effects[row]
        for column, other in enumerate(home):
            dense[place, other] += circuit.dense()[row, column]

    torch.testing.assert_close(summed.effects, effects, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(summed.dense().double(), dense, rtol=1e-12, atol=1e-12)


def test_tables_hold_every_node_and_edge(tmp_path: Path) -> None:
    circuit = small_circuit().annotate({"0.mlp_out.feature:3": "plural, subject"})
    with circuit.to_csv(tmp_path / "edges.csv").open(encoding="utf-8") as stream:
        edges = [*csv.DictReader(stream)]
    with circuit.to_csv(tmp_path / "nodes.csv", "nodes").open(encoding="utf-8") as stream:
        nodes = [*csv.DictReader(stream)]

    assert {(e["source"], e["target"], float(e["weight"])) for e in edges} == {
        (str(e.source), str(e.target), e.weight) for e in circuit.edges(9)
    }
    assert [n["node"] for n in nodes] == _keys(circuit)
    assert [float(n["effect"]) for n in nodes] == circuit.effects.tolist()
    assert [n["name"] for n in nodes] == ["plural, subject", "", "", ""]


def test_frames_hold_every_node_and_edge() -> None:
    circuit = random_circuit(0, SLOTS, units=1)
    nodes, edges = circuit.to_dataframe(), circuit.to_dataframe("edges")

    assert isinstance(nodes, pandas.DataFrame)
    assert nodes["key"].tolist() == _keys(circuit)
    assert nodes["effect"].tolist() == circuit.effects.tolist()
    assert nodes["slot"].tolist()[:-1] == [SLOTS[i] for i in circuit.nodes.position[:-1].tolist()]
    assert len(edges) == circuit.weights.nnz
    with pytest.raises(ValueError, match="tables of 'nodes' and 'edges'"):
        check_table("vertices")
