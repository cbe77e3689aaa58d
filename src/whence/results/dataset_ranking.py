"""Units in the order of their attributions: the strongest first, of one sign or of both.

Each site is sorted on its own and gives no more than its share of what is asked for; then those are sorted together.
Ties keep the order of sites and units, so that pages of a ranking continue each other. Zeros and undefined numbers have
no rank. Cost: one row (or column) of each block, and its sorting. It knows nothing of stores.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import SIGNED
from whence.results.keys import Node

Sign = Literal["positive", "negative", "both"]
SIGNS = ("positive", "negative", "both")


@dataclass(frozen=True)
class Entry:
    """One unit of a ranking.

    Args:
        key: Which unit.
        value: Its attribution.
        standard_error: How sure that is; None where it is not known.
        token: What it says, where the unit is a token with a known text.
        site: Its site.
        in_sum: Whether the sources of its block belong to a sum that equals the target; else it is a local derivative,
            or sources count by their importance.
    """

    key: Node
    value: float
    standard_error: float | None
    token: str | None
    site: str
    in_sum: bool


@dataclass(frozen=True)
class Found:
    """The attribution from one unit to another; `float(found)` is its value.

    Args:
        source: From which unit.
        target: To which.
        value: The attribution.
        standard_error: How sure that is; None where it is not known.
        in_sum: Whether it belongs to a sum that equals the target; else it is a local derivative, or sources count by
            their importance.
    """

    source: Node
    target: Node
    value: float
    standard_error: float | None
    in_sum: bool

    def __float__(self) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True, eq=False)
class Line:
    """Numbers of the units of one site.

    Args:
        site: Which.
        ids: The units.
        values: Their attributions.
        errors: Their standard errors, if known.
        in_sum: Whether they belong to a sum.
    """

    site: str
    ids: Int[Tensor, " unit"]
    values: Float[Tensor, " unit"]
    errors: Float[Tensor, " unit"] | None
    in_sum: bool


def check_asked(metric: str, sign: str, k: int, offset: int) -> None:
    """Refuse a list that cannot be.

    Args:
        metric: Of the ranking.
        sign: Which values.
        k: How many units.
        offset: After how many.

    Raises:
        ValueError: Unknown sign, negative values of a metric that has none, or a size below its least.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign={sign!r} is none of {', '.join(SIGNS)}.")
    if sign == "negative" and metric not in SIGNED:
        raise ValueError(f"{metric} is never negative, so it has no negative list. Ask {' or '.join(SIGNED)} for one.")
    if k < 1 or offset < 0:
        raise ValueError(f"k={k}, offset={offset}: at least one unit, after none or more.")


def strongest(lines: Iterable[Line], k: int, offset: int, sign: str) -> tuple[list[tuple[Line, int]], int]:
    """The units of rank offset + 1 to offset + k, each with its place in its line, and how many have a rank.

    Args:
        lines: All that are ranked.
        k: How many to give.
        offset: How many to pass over.
        sign: "positive" ranks the values above 0, "negative" those below, the most negative first; "both" by size.
    """
    ranked = 0
    best: list[tuple[float, Line, int]] = []
    for line in lines:
        size = _sizes(line.values, sign)
        kept = (size > 0).nonzero()[:, 0]
        first = kept[size[kept].argsort(descending=True, stable=True)[: offset + k]].tolist()
        ranked += len(kept)
        best = sorted([*best, *((float(size[i]), line, i) for i in first)], key=lambda one: -one[0])[: offset + k]
    return [(line, place) for _, line, place in best[offset:]], ranked


def _sizes(values: Float[Tensor, " unit"], sign: str) -> Float[Tensor, " unit"]:
    sized = values.abs() if sign == "both" else values if sign == "positive" else -values
    return torch.where(sized.isnan(), 0.0, sized)
