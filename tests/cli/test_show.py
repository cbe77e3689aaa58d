import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import whence as library
from whence.demo import dictionary_path

Whence = Callable[..., Result]


def test_show_repeats_the_table(whence: Whence, run: Path) -> None:
    assert whence("show", str(run)).stdout in (run.parent / "said.txt").read_text()


def test_show_of_a_node_has_all_its_edges(whence: Whence, run: Path) -> None:
    graph = library.Graph.load(run)
    key = str(graph.edges(5)[1].source)
    found = json.loads(whence("show", str(run), "--node", key, "--json").stdout)
    for way in ("into", "out_of"):
        wanted = [(str(e.source), str(e.target), e.weight) for e in getattr(graph, way)(key)]
        assert [tuple(edge.values()) for edge in found[way]] == wanted
    said = whence("show", str(run), "--node", key, "--rows", "2").stdout
    assert f"and {len(found['into']) - 2} more" in said
    assert "output:135@8  ' Austin'" in said


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_a_folder_without_a_graph_is_one_sentence(whence: Whence, tmp_path: Path, command: str) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, dictionary_path("transcoders")):
        result = whence(command, str(folder))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert str(folder) in result.stderr


def test_a_node_that_is_not_there_has_its_neighbours_named(whence: Whence, run: Path) -> None:
    result = whence("show", str(run), "--node", "3.mlp.feature:999@8")
    assert result.exit_code == 2
    assert re.match(r"error: 3\.mlp\.feature:999@8 is not among .* Near it are 3\.mlp\.feature:\d+@8, ", result.stderr)
