"""Parameter components: weight matrices as sums of rank-one parts, with how important each part is at each token.

    W = (V U)ᵀ + delta        W [out, in], V [in, component], U [component, out]

A component's activation is a = x V, it writes a_c U_c, and its causal importance c in [0, 1] says whether the token
needs it. What the components miss of a matrix is `delta`, found from the model's own weights where it is used; biases
stay biases. Cost: two matrix products a matrix. Knows nothing of how V, U and the importances came about.

Source: Bushnaq et al. (2025), Stochastic Parameter Decomposition, equations 1 to 4.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# (inputs of every decomposed matrix by site: [example, pos, in]; row of the data that each example is) -> importances
# by site: [example, pos, component], each in [0, 1]
Importance = Callable[[Mapping[str, Tensor], Int[Tensor, " example"]], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Part:
    """One decomposed matrix.

    Args:
        site: Its canonical name, such as "0.attn.q" (`whence.model.matrices`).
        V: What each component reads.
        U: What a unit of each component writes.
        alive: Components that ever matter; all if None.

    Raises:
        ValueError: Shapes that do not fit.
    """

    site: str
    V: Float[Tensor, "into _"]
    U: Float[Tensor, "_ out"]
    alive: Bool[Tensor, " _"] | None = None

    def __post_init__(self) -> None:
        count = self.V.shape[1]
        if self.U.shape[0] != count or (self.alive is not None and self.alive.shape != (count,)):
            shapes = f"V {tuple(self.V.shape)}, U {tuple(self.U.shape)}"
            raise ValueError(f"{self.site}: {shapes} and alive do not speak of the same number of components")

    @property
    def count(self) -> int:
        """Components, alive or not."""
        return self.V.shape[1]

    @property
    def ids(self) -> Int[Tensor, " alive"]:
        """The components that are alive, ascending."""
        return torch.arange(self.count) if self.alive is None else self.alive.nonzero()[:, 0].cpu()


@dataclass(frozen=True, eq=False)
class ParameterComponents:
    """The decomposed matrices of a model, by site.

    Args:
        parts: One a matrix.
        importance: Says how much each component matters at each token.
        source: Where they came from, for the record.
        revision: The version of the source.
        about: What else results should record of them, in JSON's types.
    """

    parts: Mapping[str, Part]
    importance: Importance
    source: str | None = None
    revision: str | None = None
    about: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts.values())

    def __len__(self) -> int:
        return len(self.parts)
