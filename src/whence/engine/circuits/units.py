"""How the vector at a site is split into units: what each says, what it writes, and what reads it.

    features    x = f W_dec + b_dec (+ r W_skipᵀ) + eps,  f = act(r W_encᵀ + b_enc),  r what is read (an SAE: x itself)
    blocks      x side by side: heads of attn_z, neurons of an MLP, or the whole vector as one

A unit is a number (a feature, a neuron) or a vector (a head, the error eps, a skip's output), which stays a vector
until the last product. With G = dm/dx [.., d], delta = baseline - clean of what the unit says, and f's local derivative
the gate 1[f != 0] (top-k and thresholds keep their choice), a unit has

    effect      G · (what delta writes)
    tangent     what delta writes: delta f_i W_dec[i], delta eps, delta (r W_skipᵀ), delta x_block
    cotangent   G through the unit, at what is read (r) and at x
                feature  (G · W_dec[i]) gate_i W_enc[i] at r
                error    G at x, -(((G W_decᵀ) gate) W_enc + G W_skip) at r
                skip     G W_skip at r
                block    G_block at x

Cost: two products with the dictionary a call, chunk by chunk; rows of it for the units asked for. Knows nothing of
where the site is.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Said:
    """What the units of a site say: features, and vectors (skip, error; or the blocks as one)."""

    features: Shaped[Tensor, "*rows feature"]
    vectors: Shaped[Tensor, "*rows k _"]

    def minus(self, other: "Said") -> "Said":
        """The difference of two."""
        return Said(self.features - other.features, self.vectors - other.vectors)

    def mixed(self, other: "Said", kept: "Said") -> "Said":
        """This where `kept` is 1, the other where it is 0."""
        return Said(
            torch.where(kept.features, self.features, other.features),
            torch.where(kept.vectors, self.vectors, other.vectors),
        )


@dataclass(frozen=True, eq=False)
class Cotangents:
    """What reads a site's units, a row each: at the site's own vector, and at what is read for it."""

    own: Float[Tensor, "n d"] | None
    read: Float[Tensor, "n r"] | None


@dataclass(frozen=True, eq=False)
class Places:
    """Units at tokens, a line each."""

    example: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    unit: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.unit)

    def of(self, tensor: Float[Tensor, "example pos *rest"]) -> Float[Tensor, "n *rest"]:
        """The rows of these tokens."""
        return tensor[self.example, self.position]

    def where(self, chosen: Bool[Tensor, " n"]) -> "Places":
        """Some of the lines."""
        return Places(self.example[chosen], self.position[chosen], self.unit[chosen])


def places_of(chosen: Bool[Tensor, "example pos k"], unit: Int[Tensor, " k"]) -> Places:
    """The lines of the chosen units, by example, position, unit."""
    example, position, column = chosen.nonzero(as_tuple=True)
    return Places(example, position, unit[column])


def turns(group: Int[Tensor, " n"], groups: int) -> Int[Tensor, " n"]:
    """The how-manieth of its group each line is.

    Example:
        >>> turns(torch.tensor([0, 1, 0, 0]), 2)
        tensor([0, 0, 1, 2])
    """
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=groups)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(group), device=group.device) - starts[group[order]]
    return torch.empty_like(place).index_copy(0, order, place)


@runtime_checkable
class Units(Protocol):
    """The units of one site, numbered from 0."""

    @property
    def width(self) -> int:
        """Of the site's vector."""
        ...

    @property
    def count(self) -> int:
        """How many there are, errors included."""
        ...

    def name(self, unit: int) -> tuple[str, int | None]:
        """The end of a unit's name and its index: ("feature", 7), ("error", None)."""
        ...

    def split(self, own: Float[Tensor, "*rows d"], read: Float[Tensor, "*rows r"]) -> Said:
        """What the units say."""
        ...

    def join(self, said: Said) -> Float[Tensor, "*rows d"]:
        """The vector that they make together."""
        ...

    def written(self, delta: Said) -> Float[Tensor, "*rows d"]:
        """What a difference of what they say writes."""
        ...

    def mask(self, kept: Bool[Tensor, "*rows count"]) -> Said:
        """A choice of units in the shape of what they say: 1 where kept."""
        ...

    def effects(self, gradient: Float[Tensor, "*rows d"], delta: Said) -> Float[Tensor, "*rows count"]:
        """Each unit's effect to first order."""
        ...

    def moved(self, delta: Said, unit: Int[Tensor, " k"]) -> Bool[Tensor, "*rows k"]:
        """Whether a unit says anything else in the baseline."""
        ...

    def gate(self, said: Said) -> Float[Tensor, "*rows feature"]:
        """The local derivative of what each feature says by what it reads."""
        ...

    def open(self, gate: Float[Tensor, "*rows feature"], unit: Int[Tensor, " k"]) -> Bool[Tensor, "*rows k"]:
        """Whether anything can act through a unit, to first order."""
        ...

    def tangents(self, delta: Said, at: Places) -> Float[Tensor, "n d"]:
        """What the difference of each of these units writes."""
        ...

    def cotangents(self, gradient: Float[Tensor, "example pos d"], gate: Tensor, at: Places) -> Cotangents:
        """What reads each of these units."""
        ...
