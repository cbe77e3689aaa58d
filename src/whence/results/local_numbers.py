"""Numbers with named axes at both ends of a pair of sites, as a list of entries.

    value[e] stands at index[a, e] of axis a                        a number that is not listed is 0

Axes are example, target_position, target_unit, source_position, source_unit (or source_coordinate); each has labels.
Numbers are reached by label and summed by axis name; there is no other way in, so the two ends cannot be mistaken for
one another whatever their widths are. Cost: one entry for each number that is not 0. Knows nothing of what they mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Made = TypeVar("Made", bound="LocalNumbers")


@dataclass(frozen=True)
class Ends:
    """The two sites, and the length of every prompt.

    Args:
        source: Key of the site that edges leave.
        target: Key of the site that they lead to; "metric" for the number explained.
        lengths: Tokens of each example.
    """

    source: str
    target: str
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, eq=False, repr=False)
class LocalNumbers:
    """The part that all kinds of local edges share.

    Args:
        ends: Which sites, and of how many tokens.
        axes: The labels of each axis, by its name and in order.
        index: Where each number stands, a row an axis.
        value: The numbers.
    """

    MEANING: ClassVar[str]

    ends: Ends
    axes: Mapping[str, tuple[str, ...]]
    index: Int[Tensor, "axis entry"]
    value: Float[Tensor, " entry"]

    def __len__(self) -> int:
        """How many numbers are listed."""
        return len(self.value)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {len(labels)}" for name, labels in self.axes.items())
        return f"{type(self).__name__}({self.ends}; {axes}; {len(self):,} numbers)"

    def dense(self) -> Float[Tensor, "*axes"]:
        """All numbers, one dimension for each of `axes` in their order; 0 also past a prompt's end.

        Example:
            >>> effects.dense().shape == tuple(map(len, effects.axes.values()))  # doctest: +SKIP
            True
        """
        shape = tuple(map(len, self.axes.values()))
        out = self.value.new_zeros(prod(shape))
        return out.index_add_(0, self._flat(), self.value).view(shape)

    def sum(self: Made, *names: str) -> Made:
        """The same without the axes named, summed over.

        Args:
            names: Names of axes.

        Raises:
            ValueError: A name that is no axis of these numbers.

        Example:
            >>> effects.sum("example", "target_position", "source_position").dense().shape  # doctest: +SKIP
            torch.Size([24, 18])
        """
        unknown = [name for name in names if name not in self.axes]
        if unknown:
            raise ValueError(f"sum over {', '.join(unknown)}: the axes of these numbers are {', '.join(self.axes)}.")
        kept = [place for place, name in enumerate(self.axes) if name not in names]
        axes = {name: labels for name, labels in self.axes.items() if name not in names}
        return replace(self, axes=axes, index=self.index[kept], value=self.value)._merged()

    def __add__(self: Made, other: Made) -> Made:
        self._check(other)
        joined = torch.cat([self.index, other.index], 1), torch.cat([self.value, other.value])
        return replace(self, index=joined[0], value=joined[1])._merged()

    def __sub__(self: Made, other: Made) -> Made:
        self._check(other)
        return self + replace(other, value=-other.value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LocalNumbers):
            return NotImplemented
        self._check(other)
        return bool(torch.equal(self.dense(), other.dense()))

    def _check(self, other: "LocalNumbers") -> None:
        """Refuse to take two kinds, or two pairs of sites, for one another."""
        if type(self) is not type(other):
            raise TypeError(
                f"{type(self).__name__} are {self.MEANING}; {type(other).__name__} are {other.MEANING}: they do not "
                "add up and are not compared. gradient.times_difference() makes effects of gradients."
            )
        if (self.ends, dict(self.axes)) != (other.ends, dict(other.axes)):
            raise ValueError(
                f"{self!r} and {other!r} have other sites, examples or axes; take both from the same prompts."
            )

    def _merged(self: Made) -> Made:
        """One entry for each place with a number."""
        flat, place = self._flat().unique(return_inverse=True)
        value = self.value.new_zeros(len(flat)).index_add_(0, place, self.value)
        flat, value = flat[value != 0], value[value != 0]
        sizes = [len(labels) for labels in self.axes.values()]
        strides = [prod(sizes[at + 1 :]) for at in range(len(sizes))]
        rows = [flat // stride % size for stride, size in zip(strides, sizes, strict=True)]
        index = torch.stack(rows) if rows else self.index.new_zeros(0, len(flat))
        return replace(self, index=index, value=value)

    def _flat(self) -> Int[Tensor, " entry"]:
        flat = torch.zeros(len(self.value), dtype=torch.long)
        for row, labels in zip(self.index, self.axes.values(), strict=True):
            flat = flat * len(labels) + row
        return flat

    # ------------------------------------------------------------ by label
    def _chosen(self, example: int | None, target: str | None, source: str | None) -> Bool[Tensor, " entry"]:
        """Which entries a user means by an example and the keys of two ends."""
        here = self._at_example(example)
        if (target, self.ends.target) != ("metric", "metric"):
            here = here & self._at_end("target", self.ends.target, target, example)
        return here & self._at_end("source", self.ends.source, source, example)

    def _at_example(self, example: int | None) -> Tensor:
        if ("example" in self.axes) != (example is not None):
            asked = "give example=" if example is None else "they were summed over; leave example= out"
            raise ValueError(f"these numbers have the axes {', '.join(self.axes)}: {asked}.")
        if example is None:
            return torch.ones(len(self), dtype=torch.bool)
        if not 0 <= example < len(self.ends.lengths):
            raise ValueError(f"example={example}; there are {len(self.ends.lengths)} examples, counted from 0.")
        return self._row("example") == example

    def _at_end(self, end: str, site: str, key: str | None, example: int | None) -> Tensor:
        unit, at, position = ("" if key is None else key).partition("@")
        here = torch.ones(len(self), dtype=torch.bool)
        place = f"{end}_position"
        if bool(at) != (place in self.axes):
            asked = f"a position, such as {site}...@0" if place in self.axes else "no position: it was summed over"
            raise ValueError(f"{end}={key!r}: its key needs {asked}.")
        if at:
            longest = max(self.ends.lengths) if example is None else self.ends.lengths[example]
            if not position.isdecimal() or int(position) >= longest:
                raise ValueError(f"{end}={key!r}: its prompt has the positions 0 to {longest - 1}.")
            here = self._row(place) == int(position)
        return here & torch.isin(self._row(self._unit_axis(end)), self._units(end, site, unit))

    def _unit_axis(self, end: str) -> str:
        name = next((name for name in (f"{end}_unit", f"{end}_coordinate") if name in self.axes), None)
        if name is None:
            raise ValueError(f"the {end}'s units were summed over; the axes are {', '.join(self.axes)}.")
        return name

    def _units(self, end: str, site: str, key: str) -> Int[Tensor, " unit"]:
        """The places of a unit's numbers on its axis: one, or those of all its coordinates."""
        labels = self.axes[self._unit_axis(end)]
        if key in labels:
            return torch.tensor([labels.index(key)])
        found = [place for place, label in enumerate(labels) if label.startswith(f"{key}[")]
        if found:
            return torch.tensor(found)
        near = get_close_matches(key, labels, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {len(labels)}: {', '.join(labels[:3])} ..."
        raise ValueError(f"{end}={key!r} is no unit of {site} here; {hint}")

    def _row(self, axis: str) -> Tensor:
        return self.index[list(self.axes).index(axis)]
