from collections.abc import Callable
from pathlib import Path

import torch
from typer.testing import Result

import whence as library
from whence.demo import PROMPT

Whence = Callable[..., Result]


def test_parts_solved_apart_make_the_whole(whence: Whence, run: Path, tmp_path: Path) -> None:
    parts = [str(tmp_path / name) for name in "ab"]
    for number, part in enumerate(parts):
        result = whence("graph", PROMPT, "--targets", " Austin", "--shard", f"{number}/2", "-o", part)
        assert result.exit_code == 0, result.stderr
        assert "once all parts are there: whence merge" in result.stdout
    assert whence("merge", *parts, "-o", str(tmp_path / "whole")).exit_code == 0
    torch.testing.assert_close(library.Graph.load(tmp_path / "whole").dense(), library.Graph.load(run).dense())
    lacking = whence("merge", parts[0], "-o", str(tmp_path / "whole"))
    assert (lacking.exit_code, lacking.stdout) == (2, "")
    assert "missing: [1]" in lacking.stderr
