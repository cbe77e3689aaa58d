"""How long work reports itself: one callback of (stage, done, total). The library never prints."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Take a report and do nothing with it: the default of every long job."""
