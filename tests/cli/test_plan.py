import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

import whence as library
from whence.demo import PROMPT

Whence = Callable[..., Result]


def test_a_plan_counts_the_rows_that_the_graph_then_has(whence: Whence, run: Path) -> None:
    planned = json.loads(whence("plan", PROMPT, "--memory", "1GB", "--json").stdout)
    assert planned["rows"] == len(library.Graph.load(run).selected_features)
    assert planned["fits"] is True
    chosen = ("plan", PROMPT, "--max-nodes", "50", "--json")
    assert json.loads(whence(*chosen, "--order", "exact").stdout)["rows"] == 50
    assert "of rows on disk" in whence("plan", PROMPT, "--memory", "1.15MB").stdout
