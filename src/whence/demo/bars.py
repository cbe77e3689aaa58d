"""Progress of the demo's programs as bars on stderr, one a stage."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from whence.progress import Progress


@contextmanager
def bars() -> Generator[Progress]:
    """Within the block, what is reported to the value shows; the words after a stage's colon change as it goes."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    shown = dict[str, TaskID]()
    with Bars(*columns, console=Console(stderr=True)) as drawn:

        def report(stage: str, done: int, total: int) -> None:
            name = stage.split(":")[0]
            if name not in shown:
                shown[name] = drawn.add_task(stage, total=total)
            drawn.update(shown[name], description=stage, completed=done)

        yield report
