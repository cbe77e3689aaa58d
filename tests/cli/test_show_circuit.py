import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from circuits import small_circuit

Whence = Callable[..., Result]


@pytest.fixture
def circuit_run(tmp_path: Path) -> Path:
    return small_circuit().annotate({"0.mlp_out.feature:3": "plural"}).save(tmp_path / "circuit")


def test_show_prints_the_table_of_a_circuit(whence: Whence, circuit_run: Path) -> None:
    said = " ".join(whence("show", str(circuit_run), "--rows", "2").stdout.split())

    assert "the 2 nodes with the largest effects" in said
    assert "1.resid_post.feature:7 +2.000" in said
    assert "0.mlp_out.feature:3 plural +0.625" in said


def test_show_gives_a_circuit_as_one_document(whence: Whence, circuit_run: Path) -> None:
    found = json.loads(whence("show", str(circuit_run), "--json", "--rows", "1").stdout)

    assert (found["nodes"], found["errors"], found["edges"], found["examples"]) == (3, 1, 4, 2)
    assert found["effects"] == {"1.resid_post.feature:7": 2.0, "metric": 2.0}
    assert found["strongest"] == [{"source": "1.resid_post.feature:7", "target": "metric", "weight": 2.0}]


def test_show_of_a_node_of_a_circuit_has_its_edges(whence: Whence, circuit_run: Path) -> None:
    said = whence("show", str(circuit_run), "--node", "1.resid_post.feature:7").stdout
    found = json.loads(whence("show", str(circuit_run), "--node", "1.resid_post.feature:7", "--json").stdout)

    assert "1.resid_post.feature:7: effect +2" in said
    assert "0.mlp_out.feature:3  plural" in said
    assert [edge["weight"] for edge in found["into"]] == [0.5, -0.25]
    assert [edge["weight"] for edge in found["out_of"]] == [2.0]


def test_a_circuit_is_not_pruned_like_a_graph(whence: Whence, circuit_run: Path) -> None:
    result = whence("show", str(circuit_run), "--prune", "0.8")

    assert result.exit_code == 2
    assert "of kind 'circuit'" in result.stderr
