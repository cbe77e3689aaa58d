"""A dataset of the Hugging Face Hub as a stream of records, through `datasets` (an optional dependency).

Cost: what is read of the stream. Knows nothing of the records.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any


def stream(name: str) -> Iterable[dict[str, Any]]:
    """The records of a split, read from the Hub as they are taken.

    Args:
        name: "org/name" for the training split, or "org/name:split".

    Raises:
        ModuleNotFoundError: `datasets` is not installed.
        ValueError: The name is empty or has more than one colon.

    Example:
        >>> next(iter(stream("SimpleStories/SimpleStories:test")))  # doctest: +SKIP
        {'story': ...}
    """
    path, *split = name.split(":")
    if not path or len(split) > 1 or split == [""]:
        raise ValueError(f"'hf:{name}' is no dataset; write 'hf:org/name' or 'hf:org/name:split'")
    try:
        datasets = import_module("datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"'hf:{name}' needs the datasets package: pip install 'whence[data]'") from error
    return datasets.load_dataset(path, split=split[0] if split else "train", streaming=True)
