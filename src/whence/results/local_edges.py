"""Edges at single tokens, as three things that do not mix: effects, gradients, and indirect effects.

    EdgeEffects      one number for each example, target unit at a position, and source unit at a position
    EdgeGradients    before the source's difference is contracted: a number for each coordinate of the source, which
                     are its features and then every coordinate of its vectors (the error; a head; a whole sublayer)
    IndirectEffects  as effects, along the paths that pass the sites named

With c_d the metric's gradient through the target d, J the Jacobian between the sites with all others held, W_u what a
step of a coordinate of u writes, and delta the difference of what u says:

    gradient[d, u, i] = c_dᵀ J W_u[i],    effect[d, u] = sum_i gradient[d, u, i] delta[u, i]

Units are labelled by the node keys they have in circuits. Cost: one entry for each number that is not 0. Knows nothing
of models.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.local_numbers import Ends, LocalNumbers

__all__ = ["EdgeEffects", "EdgeGradients", "Ends", "IndirectEffects"]


@dataclass(frozen=True, eq=False, repr=False)
class _OneEach(LocalNumbers):
    """A number for each pair of units."""

    def at(self, *, target: str, source: str, example: int | None = None) -> float:
        """One of the numbers.

        Args:
            target: Key of the target unit with its position, as "1.resid_post.feature:7@3"; "metric" as it is.
            source: Key of the source unit, likewise.
            example: Which example; left out where examples were summed over.

        Raises:
            ValueError: No such unit, position or example.

        Example:
            >>> effects.at(example=0, target="metric", source="3.resid_post.error@5")  # doctest: +SKIP
            -0.0312
        """
        return float(self.value[self._chosen(example, target, source)].sum())


@dataclass(frozen=True, eq=False, repr=False)
class EdgeEffects(_OneEach):
    """What each source unit's difference does to the metric by way of each target unit, directly.

    Axes: example, target_position, target_unit, source_position, source_unit. Units are labelled by node keys.

    Example:
        >>> edges.effect("0.resid_post", "1.resid_post").axes.keys()  # doctest: +SKIP
        dict_keys(['example', 'target_position', 'target_unit', 'source_position', 'source_unit'])
    """

    MEANING: ClassVar[str] = "one number for each unit of the source, its difference contracted"


@dataclass(frozen=True, eq=False, repr=False)
class IndirectEffects(_OneEach):
    """What reaches each target unit from each source unit along paths that pass the sites in `through`.

    Axes: as of `EdgeEffects`. With several sites in `through`, paths that pass one of them or several in turn.

    Args:
        through: Keys of the sites whose vectors were not held.

    Example:
        >>> edges.indirect("0.resid_post", "1.resid_post", through=["1.mlp_out"]).through  # doctest: +SKIP
        ('1.mlp_out',)
    """

    MEANING: ClassVar[str] = "effects along paths that pass other sites"

    through: tuple[str, ...] = ()

    def _check(self, other: LocalNumbers) -> None:
        super()._check(other)
        assert isinstance(other, IndirectEffects)
        if self.through != other.through:
            raise ValueError(
                f"one goes through {', '.join(self.through)} and the other through {', '.join(other.through)}: paths "
                "that pass both would count twice; ask for indirect(..., through=) of all of them at once."
            )


@dataclass(frozen=True, eq=False, repr=False)
class EdgeGradients(LocalNumbers):
    """What a step of each coordinate of the source does to the metric by way of each target unit, directly.

    Axes: example, target_position, target_unit, source_position, source_coordinate. Coordinates are labelled by the
    node key of a feature, and of vectors by the key and a number: "0.resid_post.error[3]".

    Args:
        difference: Baseline minus clean, of each coordinate of the source: [example, position, coordinate].

    Example:
        >>> effects = edges.gradient("0.resid_post", "1.resid_post").times_difference()  # doctest: +SKIP
    """

    MEANING: ClassVar[str] = "one number for each coordinate of the source, its difference not contracted"

    difference: Float[Tensor, "example position coordinate"]
    unit: tuple[str, ...]  # labels of the source's units
    unit_of: tuple[int, ...]  # which unit each coordinate belongs to

    def at(self, *, target: str, source: str, example: int | None = None) -> Float[Tensor, " coordinate"]:
        """The numbers of one source unit: one of a feature, all coordinates of an error or another vector.

        Args:
            target: Key of the target unit with its position, as "1.resid_post.feature:7@3"; "metric" as it is.
            source: Key of the source unit, likewise.
            example: Which example; left out where examples were summed over.

        Raises:
            ValueError: No such unit, position or example.

        Example:
            >>> gradients.at(example=0, target="metric", source="0.resid_post.error@3").shape  # doctest: +SKIP
            torch.Size([64])
        """
        here = self._chosen(example, target, source)
        places = self._units("source", self.ends.source, source.partition("@")[0])
        place = torch.searchsorted(places, self._row("source_coordinate")[here])
        return self.value.new_zeros(len(places)).index_add_(0, place, self.value[here])

    def times_difference(self) -> EdgeEffects:
        """The effects: every coordinate times the source's difference, summed by unit.

        Raises:
            ValueError: Gradients that were summed over an axis; the difference has to come first.

        Example:
            >>> gradients.times_difference() - effects  # doctest: +SKIP
            EdgeEffects(0.resid_post -> 1.resid_post; ...)
        """
        if "source_coordinate" not in self.axes or len(self.axes) != len(FULL):
            raise ValueError(
                f"these gradients were summed and have the axes {', '.join(self.axes)}: the difference is another at "
                "every example and position, so call times_difference() before sum()."
            )
        row = self._row
        step = self.difference[row("example"), row("source_position"), row("source_coordinate")]
        unit = torch.tensor(self.unit_of, dtype=torch.long)[row("source_coordinate")]
        axes = {**dict(list(self.axes.items())[:-1]), "source_unit": self.unit}
        index = torch.cat([self.index[:-1], unit[None]])
        return EdgeEffects(self.ends, axes, index, self.value * step)._merged()


FULL = ("example", "target_position", "target_unit", "source_position", "source_coordinate")
