"""Ids of training runs, in every form that people paste, and where the attributions of one lie on this machine.

    s-1a2b3c4d                      with the default project
    entity/project/s-1a2b3c4d       entity/project/runs/s-1a2b3c4d       either after "wandb:"
    https://wandb.ai/entity/project/runs/s-1a2b3c4d/workspace?nw=x

Cost: a look at a few folders. It asks no server.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from whence.errors import FileFormatError
from whence.results import dataset_runs

PROJECT, RUNS, THEIRS = "WHENCE_PROJECT", "WHENCE_RUNS", "SPD_OUT_DIR"
_FOLDER, _FILE = "dataset_attributions", "dataset_attributions.pt"
_ID, _WORD = "(?:[a-z0-9]-)?[a-z0-9]{8}", r"[\w.-]+"
_SHORT = re.compile("s-[a-z0-9]{8}")
_LONG = re.compile(rf"(?:wandb:)?(?P<entity>{_WORD})/(?P<project>{_WORD})/(?:runs/)?(?P<id>{_ID})", re.ASCII)
_URL = re.compile(
    rf"https?://(?:www\.)?wandb\.ai/(?P<entity>{_WORD})/(?P<project>{_WORD})/runs/(?P<id>{_ID})(?:[/?#].*)?", re.ASCII
)
_PROJECT = re.compile(rf"(?P<entity>{_WORD})/(?P<project>{_WORD})", re.ASCII)
_FORMS = (
    "s-xxxxxxxx (with a default project), entity/project/id, entity/project/runs/id, either after 'wandb:', or "
    "https://wandb.ai/entity/project/runs/id; an id is 8 lower-case letters and digits, with or without one and '-' "
    "before them"
)


@dataclass(frozen=True, slots=True)
class RunId:
    """A run: whose, of which project, and its id."""

    entity: str
    project: str
    id: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"


def parse_run_id(text: str, project: str | None = None) -> RunId:
    """The run that a text means.

    Args:
        text: An id in one of the forms above.
        project: "entity/project" of ids without; None takes that of the environment variable WHENCE_PROJECT.

    Raises:
        ValueError: The text has none of the forms, which are listed; or a short id and no default project.

    Example:
        >>> str(parse_run_id("https://wandb.ai/lab/models/runs/s-1a2b3c4d?nw=x"))
        'lab/models/s-1a2b3c4d'
    """
    text = text.strip()
    if _SHORT.fullmatch(text):
        return RunId(*_default(text, project), text)
    match = _URL.fullmatch(text) or _LONG.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not the id of a run. Write one as {_FORMS}.")
    return RunId(match["entity"], match["project"], match["id"])


def find_run(run: RunId, root: str | Path | None = None) -> Path:
    """Where the attributions of a run lie: a folder for `dataset_runs.find_result`, or a file for `dataset_spd`.

    Args:
        run: The run.
        root: The folder of all runs; None takes that of the environment variable WHENCE_RUNS, or "runs".

    Raises:
        FileFormatError: Nowhere; lists the places.

    Example:
        >>> find_run(RunId("lab", "models", "s-1a2b3c4d"), "runs")  # doctest: +SKIP
        PosixPath('runs/dataset_attributions/s-1a2b3c4d')
    """
    ours = Path(root or os.environ.get(RUNS, "runs")) / _FOLDER / run.id
    looked = [str(ours)]
    if ours.is_dir():
        return ours
    if os.environ.get(THEIRS):
        theirs = Path(os.environ[THEIRS]) / _FOLDER / run.id
        for folder in (*dataset_runs.subruns(theirs), theirs):
            if (folder / _FILE).is_file():
                return folder / _FILE
        looked.append(f"{theirs}/da-*/{_FILE}")
    raise FileFormatError(
        f"there are no attributions of {run} in {' or '.join(looked)}. Set {RUNS}, or {THEIRS} for files of spd, to "
        "the folder that has them."
    )


def _default(text: str, project: str | None) -> tuple[str, str]:
    given = project or os.environ.get(PROJECT)
    if not given:
        raise ValueError(f"{text!r} has no project. Set {PROJECT}=entity/project, or write it as {_FORMS}.")
    match = _PROJECT.fullmatch(given)
    if match is None:
        raise ValueError(f"the default project {given!r} is not of the form entity/project.")
    return match["entity"], match["project"]
