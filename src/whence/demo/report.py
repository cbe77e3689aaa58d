"""The report of a training run: tables for a person, `report.json` for a program, from the same data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from whence.demo.decompose_report import ComponentsScore
from whence.demo.evaluate import TaskScore
from whence.demo.measure import DictionaryScore


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of training made, and how good it is.

    `about` holds the seed, the recipes, the versions, the CPU seconds and the model's own loss in nats; `in_place`
    holds the task scores with a set of dictionaries in the place of every MLP, by the set's name; `components`
    is None where a run decomposes nothing.
    """

    about: dict[str, Any]
    tasks: Sequence[TaskScore]
    dictionaries: Sequence[DictionaryScore]
    in_place: dict[str, Sequence[TaskScore]]
    components: ComponentsScore | None = None

    def save(self, path: Path) -> None:
        """Write it as JSON, numbers rounded to what they can mean."""
        rows = {
            "about": self.about,
            "tasks": [asdict(score) for score in self.tasks],
            "dictionaries": [_rounded(asdict(score)) for score in self.dictionaries],
            "in_place": {name: [asdict(score) for score in scores] for name, scores in self.in_place.items()},
        }
        if self.components is not None:
            rows["components"] = self.components.rows()
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        path.chmod(0o644)

    def __rich__(self) -> Group:
        components = () if self.components is None else (self.components,)
        return Group(self._task_table(), self._dictionary_table(), *components)

    def _task_table(self) -> Table:
        """Return one row a task, narrow enough for 80 columns; a star marks what training never combined."""
        title = f"Tasks: the model (loss {self.about['loss']:.3f} nats a token), then its MLPs replaced"
        note = "* nouns, names or cities as training never combined them"
        table = Table(title=title, caption=note, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
        for column in ("task", "metric"):
            table.add_column(column, no_wrap=True)
        for column in ("model", *self.in_place):
            table.add_column(column.replace("_", "\n").replace("transcoder", "trans-\ncoder"), justify="right")
        for row, score in enumerate(self.tasks):
            replaced = (f"{scores[row].score:.3f}" for scores in self.in_place.values())
            what = ", ".join(filter(None, (score.family, score.variety))) + ("*" if score.held_out else "")
            table.add_row(what, score.metric, f"{score.score:.3f}", *replaced)
        return table

    def _dictionary_table(self) -> Table:
        title = "Dictionaries: each layer replaced alone, then all at once"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("dictionary", no_wrap=True)
        for column in ("layer", "FVU", "L0", "dead", "nats\nlost", "loss\nrecovered"):
            table.add_column(column, justify="right")
        for score in self.dictionaries:
            layer = "all" if score.layer is None else str(score.layer)
            numbers = f"{score.fvu:.4f}", f"{score.l0:.1f}", f"{score.dead:.1%}", f"{score.nats_lost:+.4f}"
            table.add_row(score.name, layer, *numbers, f"{score.loss_recovered:.2%}", end_section=score.layer is None)
        return table


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
