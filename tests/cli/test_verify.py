import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import whence as library
from whence.demo import dictionary_path

Whence = Callable[..., Result]


def test_verify_needs_neither_model_nor_dictionary_named(whence: Whence, run: Path) -> None:
    result = whence("verify", str(run), "-k", "12")
    assert result.exit_code == 0, result.stderr
    assert "12 nodes removed" in result.stdout
    report = json.loads(whence("verify", str(run), "-k", "12", "--json").stdout)
    assert len(report["nodes"]) == 12
    assert report["frozen"]["max_error"] < 1e-3


@pytest.mark.parametrize(
    ("bound", "said"),
    [("--max-error=1e-12", "relative error"), ("--spearman=0.99", "spearman"), ("--sign=0.99", "sign")],
)
def test_what_the_model_does_not_bear_out_ends_with_one(whence: Whence, run: Path, bound: str, said: str) -> None:
    result = whence("verify", str(run), "-k", "6", bound)
    assert result.exit_code == 1
    assert "6 nodes removed" in result.stdout
    assert re.search(rf"^refuted: .*{said}", result.stderr, re.MULTILINE)


def test_a_dictionary_that_has_changed_is_not_taken_for_the_graphs_own(whence: Whence, run: Path) -> None:
    graph = library.Graph.load(run)
    graph.provenance["dictionary"]["fingerprint"] = "another"
    changed = graph.save(run.with_name("changed"))
    result = whence("verify", str(changed))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not another. Give the right one as --dictionary" in result.stderr
    given = whence("verify", str(changed), "--dictionary", str(dictionary_path("transcoders")), "-k", "3")
    assert given.exit_code == 2
    assert "and the one the graph was made with another; pass that one" in given.stderr


def test_a_graph_that_does_not_say_its_model_needs_one(whence: Whence, run: Path) -> None:
    graph = library.Graph.load(run)
    del graph.provenance["model"]
    result = whence("verify", str(graph.save(run.with_name("unnamed"))))
    assert result.exit_code == 2
    assert "the result does not say with which model it was made; give --model." in result.stderr
