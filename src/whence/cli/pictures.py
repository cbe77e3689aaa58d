"""Pictures of scores: whether one can be saved, asked before the work; and, without matplotlib, the table as an SVG."""

import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from whence.results.scores import Scores

SUFFIXES = (".png", ".svg", ".pdf")  # those of whence.results.drawing, which loads torch; a test keeps them equal
REMEDY = "pip install 'whence[plot]'"
_SVG_WIDTH = 92


def has_matplotlib() -> bool:
    """Whether a picture can be drawn, without loading what draws it."""
    return find_spec("matplotlib") is not None


def check_picture(path: Path | None) -> Path | None:
    """The path, if a picture can be saved there."""
    if path is None:
        return None
    if path.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"'{path}' does not end in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder '{path.parent}'")
    if not has_matplotlib():
        raise typer.BadParameter(f"a picture needs matplotlib: {REMEDY}")
    return path


def save_table(scores: "Scores", path: Path, rows: int) -> None:
    """The table as an SVG that loads nothing from elsewhere."""
    from rich.console import Console

    recorder = Console(record=True, width=_SVG_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    recorder.print(scores.table(rows))
    svg = recorder.export_svg(title="whence")
    path.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")
