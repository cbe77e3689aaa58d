"""Arguments that jobs on circuits share, refused with a sentence where they cannot be meant."""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any


def one_of(words: Mapping[str, tuple[Any, Sequence[str]]]) -> None:
    """Refuse a word that is not known.

    Args:
        words: by argument, what was given and what is known.

    Raises:
        ValueError: naming the argument, the word and those there are.

    Example:
        >>> one_of({"rule": ("left", ("midpoint", "left"))})
    """
    for name, (given, known) in words.items():
        if given not in known:
            raise ValueError(f"{name}={given!r}; it is one of {', '.join(known)}")


def counts(**numbers: Any) -> None:
    """Refuse what does not count: less than one, or no whole number.

    Raises:
        ValueError, TypeError: naming the argument and the number.

    Example:
        >>> counts(steps=10, batch_size=8)
    """
    for name, number in numbers.items():
        try:
            whole = index(number)
        except TypeError:
            raise TypeError(f"{name}={number!r}; it is a whole number, at least 1") from None
        if whole < 1:
            raise ValueError(f"{name}={number}; it is at least 1")
