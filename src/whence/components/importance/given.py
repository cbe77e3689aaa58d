"""Importances that are given: a tensor for each site, or 1 everywhere.

    given       c[example, pos, component] = tensors[site][row of the data, pos, component]
    ones        c = 1

Cost: none but the tensors. Knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Given:
    """Importances that were computed before, by row of the data.

    Args:
        tensors: By site, [row, pos, component]; longer than the data that is looked at is well.

    Example:
        >>> given = Given({"0.attn.q": torch.tensor([[[0.0]], [[1.0]]])})
        >>> given({"0.attn.q": torch.zeros(1, 1, 8)}, torch.tensor([1]))["0.attn.q"]
        tensor([[[1.]]])
    """

    tensors: Mapping[str, Float[Tensor, "_ _ _"]]
    kind: ClassVar[str] = "given"

    def __call__(self, inputs: Mapping[str, Tensor], rows: Int[Tensor, " example"]) -> dict[str, Tensor]:
        """Importances by site, [example, pos, component].

        Raises:
            ValueError: A row that no tensor has.
        """
        length, last = next(iter(inputs.values())).shape[1], int(rows.max())
        for site, tensor in self.tensors.items():
            if last >= len(tensor):
                raise ValueError(
                    f"the importances given for {site} are for {len(tensor)} rows of data, and row {last} is asked "
                    "for; give them for the whole data, in its order"
                )
        return {site: tensor[rows.to(tensor.device), :length] for site, tensor in self.tensors.items()}

    def to(self, device: torch.device | str) -> "Given":
        """The same importances on a device."""
        return Given({site: tensor.to(device) for site, tensor in self.tensors.items()})

    def said(self) -> dict[str, Any]:
        """All but the tensors, in JSON's types."""
        return {}


@dataclass(frozen=True, eq=False)
class Ones:
    """Every component matters everywhere: for components that come without importances.

    Args:
        counts: Components of each site.

    Example:
        >>> Ones({"0.attn.q": 2})({"0.attn.q": torch.zeros(1, 1, 8)}, torch.tensor([0]))["0.attn.q"]
        tensor([[[1., 1.]]])
    """

    counts: Mapping[str, int]
    kind: ClassVar[str] = "ones"

    def __call__(self, inputs: Mapping[str, Tensor], rows: Int[Tensor, " example"]) -> dict[str, Tensor]:
        """1 by site, [example, pos, component]."""
        return {site: torch.ones(*inputs[site].shape[:2], n).to(inputs[site].device) for site, n in self.counts.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def to(self, _: torch.device | str) -> "Ones":
        """The same: it follows the inputs."""
        return self

    def said(self) -> dict[str, Any]:
        """Components of each site, in JSON's types."""
        return {"counts": dict(self.counts)}
