"""Whether the rows of a graph add up: what each row's sum missed, beside the size of what was summed.

    gap = |Σ row − value|        relative gap = gap / magnitude,  magnitude = max(Σ|row|, |reader| |read|)

`value` is the number the row explains: the pre-activation minus the encoder's constant, or the logit. It is itself an
inner product of what reads and what is read, and rounding is relative to their lengths where those say more than the
parts: so a value near zero is not asked to be more exact than it was computed. Cost: none. It knows nothing of how the
rows were computed.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


def _no_rows() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


def _no_numbers() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """The sums of a graph's rows, as they were when all its edges were there.

    Args:
        rows: The nodes whose rows were summed.
        value: The number each row explains.
        gap: How far its sum is from that.
        magnitude: The size of its parts: Σ|row|, or the length of what reads times that of what is read if larger.
        bound: The largest relative gap that passes.

    Example:
        >>> Certificate(torch.tensor([4]), torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([4.0])).worst
        0.125
    """

    rows: Int[Tensor, " row"] = field(default_factory=_no_rows)
    value: Float[Tensor, " row"] = field(default_factory=_no_numbers)
    gap: Float[Tensor, " row"] = field(default_factory=_no_numbers)
    magnitude: Float[Tensor, " row"] = field(default_factory=_no_numbers)
    bound: float = 1e-5

    @property
    def relative(self) -> Float64[Tensor, " row"]:
        """The gap over the magnitude; 0 where an empty row explains 0."""
        share = self.gap.double() / self.magnitude.double()
        return torch.where(self.gap == 0, torch.zeros_like(share), share)

    @property
    def worst(self) -> float:
        """The largest relative gap; 0 where no row was summed."""
        return self.relative.max().item() if len(self.rows) else 0.0

    @property
    def median(self) -> float:
        """The relative gap that half of the rows stay below; 0 where no row was summed."""
        return self.relative.median().item() if len(self.rows) else 0.0

    @property
    def holds(self) -> bool:
        """Whether every row adds up within the bound."""
        return self.worst <= self.bound

    def select(self, index: Int[Tensor, " kept"], nodes: int) -> "Certificate":
        """The certificate of some of the nodes, renumbered.

        Args:
            index: The nodes that stay, in their new order.
            nodes: How many there were.
        """
        place = torch.full((nodes,), -1, dtype=torch.int64)
        place[index] = torch.arange(len(index))
        rows = place[self.rows]
        kept = rows >= 0
        return Certificate(rows[kept], self.value[kept], self.gap[kept], self.magnitude[kept], self.bound)

    def __repr__(self) -> str:
        return f"Certificate({self})"

    def __str__(self) -> str:
        if not len(self.rows):
            return "no row was checked against the model"
        rows = f"{len(self.rows)} rows" if len(self.rows) > 1 else "1 row"
        verdict = "within" if self.holds else "above"
        sizes = f"{self.worst:.1e} of the size of the parts, median {self.median:.1e}"
        return f"{rows} add up to {sizes}, {verdict} the bound {self.bound:.0e}"
