"""What must hold between the parts of a set of pairs, said with the number of the pair where it does not.

Cost: one look at every token. Knows nothing of text.
"""

from collections.abc import Iterable, Sequence
from operator import index

Prompts = tuple[tuple[int, ...], ...]


def check_prompts(clean: Prompts, patch: Prompts | None) -> None:
    """Refuse no pairs, prompts without tokens, and patch prompts of another length than their clean ones.

    Raises:
        ValueError: naming the pair.

    Example:
        >>> check_prompts(((0, 5), (0, 7)), ((0, 6), (0, 8)))
    """
    if not clean:
        raise ValueError("there are no pairs: a set of pairs holds at least one.")
    empty = next((number for number, prompt in enumerate(clean) if not prompt), None)
    if empty is not None:
        raise ValueError(f"pair {empty} has a clean prompt without tokens.")
    if patch is None:
        return
    check_counts(len(clean), patch=patch)
    for number, (one, other) in enumerate(zip(clean, patch, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"pair {number} has {len(one)} clean and {len(other)} patch tokens: both prompts of a pair need the "
                "same number, so that positions can be compared."
            )


def check_counts(n: int, **parts: Sequence[object] | None) -> None:
    """Refuse a part that is given, but not once for each of the `n` pairs.

    Raises:
        ValueError: naming the part.

    Example:
        >>> check_counts(2, clean_answers=(1, 2), patch_answers=None)
    """
    for name, part in parts.items():
        if part is not None and len(part) != n:
            raise ValueError(f"{name} has {len(part)} entries for {n} pairs: give one for each pair.")


def check_slots(clean: Prompts, slots: tuple[tuple[str, ...], ...] | None, order: tuple[str, ...]) -> None:
    """Refuse names of positions that are not one for each token, or that `order` does not place.

    Raises:
        ValueError: naming the pair.

    Example:
        >>> check_slots(((0, 5),), (("<bos>", "subject"),), ("<bos>", "subject"))
    """
    if len(set(order)) != len(order):
        raise ValueError(f"order is {order}, which names a slot twice.")
    for number, (prompt, names) in enumerate(zip(clean, slots or (), strict=False)):
        if len(prompt) != len(names):
            raise ValueError(f"pair {number} has {len(prompt)} tokens and {len(names)} slots: each token needs one.")
        unknown = [name for name in names if name not in order]
        if unknown:
            raise ValueError(f"pair {number} has slots {unknown}, which are not in order, {order}.")


def numbers_of(which: object, n: int) -> list[int]:
    """The numbers of some of `n` pairs, as plain ints.

    Raises:
        TypeError: a single number, or truth values.
        IndexError: a number that is no pair's.

    Example:
        >>> numbers_of([0, -1], 5)
        [0, -1]
    """
    given = list(which) if isinstance(which, Iterable) else [True]
    if any(str(getattr(one, "dtype", type(one).__name__)).endswith("bool") for one in given):
        raise TypeError(f"pairs are taken by a slice or a list of their numbers, not by {which!r}; one is pairs[3:4].")
    numbers = [index(one) for one in given]
    outside = next((number for number in numbers if not -n <= number < n), None)
    if outside is not None:
        raise IndexError(f"there is no pair {outside}; these are pairs 0 to {n - 1}.")
    return numbers
