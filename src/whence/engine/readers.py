"""How the nodes of a group read the stream: the rows of the targets of an attribution graph.

A reader gives, for nodes of its group, covectors at what the node reads (rows of an encoder, or of an MLP's first map),
and the number they explain: row . read = pre-activation less the encoder's constant. `pulled` takes the covectors
through the norm that stands before them, to the stream, with the constant that the norm's bias adds.

Cost: a gather of rows. Knows nothing of sources.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.encoder import Active
from whence.components.sets import DictionarySet
from whence.engine.maps import NormAt


@dataclass(frozen=True, eq=False)
class Pulled:
    """Targets at the stream: covectors, what biases of the norm before them add, and the numbers to explain.

    `scale` is |row| |read|: a number near zero is a sum of larger ones that cancel, and is rounded as they are.
    """

    covector: Float[Tensor, "target d_model"]
    constant: Float[Tensor, " target"]
    value: Float[Tensor, " target"]
    scale: Float[Tensor, " target"]


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """What a group's nodes read, at the foot of a stage."""

    stage: int
    norm: NormAt
    gain: bool  # whether the norm's gain and bias stand between the stream and what is read
    size: Float[Tensor, " pos"]  # length of the vector that is read

    @abstractmethod
    def rows(self, node: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"]]:
        """Rows of these nodes of the group, and the numbers they explain."""

    @abstractmethod
    def slope(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Change of the node's activation by change of what its row explains."""

    @abstractmethod
    def activation(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """What these nodes say."""

    def pulled(self, node: Int[Tensor, " k"], position: Int[Tensor, " k"]) -> Pulled:
        """These nodes as targets."""
        rows, value = self.rows(node)
        constant = rows @ self.norm.bias.expand(rows.shape[-1]) if self.gain else torch.zeros_like(value)
        scale = rows.norm(dim=-1) * self.size[position]
        return Pulled(self.norm.pull(rows, position, gain=self.gain), constant, value, scale)


@dataclass(frozen=True, eq=False)
class DictionaryReader(Reader):
    """Features of one layer of a dictionary."""

    dictionary: DictionarySet
    layer: int
    active: Active

    def rows(self, node: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"]]:
        rows, bias = self.dictionary.encoder(self.layer, self.active.feature[node])
        like = self.norm.inverse
        return rows.to(like), self.active.pre_activation[node].to(like) - bias.to(like)

    def slope(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        return self.norm.inverse.new_ones(len(node))  # an active feature passes its pre-activation on

    def activation(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        return self.active.activation[node].to(self.norm.inverse)
