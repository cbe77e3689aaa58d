from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import whence as library

Whence = Callable[..., Result]


@pytest.mark.parametrize("to", ["html", "json", "csv"])
def test_a_file_lies_beside_the_run_and_holds_what_the_library_writes(whence: Whence, run: Path, to: str) -> None:
    result = whence("export", str(run), "--to", to, "--prune", "0.7")
    written = run.with_name(f"austin.{to}")
    assert result.stdout == f"{written}\n"
    small = library.Graph.load(run).prune(0.7)
    getattr(small, f"to_{to}")(run.with_name("wanted"))
    assert written.read_bytes() == run.with_name("wanted").read_bytes()


def test_a_file_can_be_put_elsewhere(whence: Whence, run: Path, tmp_path: Path) -> None:
    assert whence("export", str(run), "-o", str(tmp_path / "page.html")).exit_code == 0
    assert (tmp_path / "page.html").exists()
    nowhere = whence("export", str(run), "-o", str(tmp_path / "no" / "page.html"))
    assert nowhere.exit_code == 2
    assert "No such file or directory" in nowhere.stderr
