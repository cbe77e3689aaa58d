"""Faithfulness and completeness of circuits of growing size, and the areas under and around them.

    CPR = ∫ f dk,    CMD = ∫ |1 - f| dk,    f the faithfulness with a share k of the nodes (or edges) kept

by trapezoids between the sizes that were tried, smallest to largest; with log=True over ln k, where small circuits
count as much as large ones. The integrals are not divided by their span: with sizes from 0.001 to 1 a perfect f has a
CPR of 0.999, or ln 1000 = 6.91 over ln k. Cost: none. It knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from whence.results.circuit_faithfulness import CircuitScore

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    import rich.table

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
By = Literal["nodes", "edges"]


@dataclass(frozen=True, eq=False, repr=False)
class CircuitSweep:
    """Scores of parts of a circuit, from the largest part to the smallest or the other way round.

    Args:
        by: What the parts differ in: their nodes, or their edges.
        sizes: The share of the circuit's nodes or edges that each part has.
        thresholds: The threshold of each part; None where sizes were asked for.
        faithfulness: Of each part.
        completeness: Of each part.

    Raises:
        ValueError: Another number of scores than of parts, or no part.

    Example:
        >>> sweep = circuit.sweep(model, saes, pairs, sizes=(0.1, 0.5, 1.0))  # doctest: +SKIP
        >>> sweep.cpr()  # doctest: +SKIP
        0.83
    """

    by: By
    sizes: tuple[float, ...]
    thresholds: tuple[float, ...] | None
    faithfulness: tuple[CircuitScore, ...]
    completeness: tuple[CircuitScore, ...]

    def __post_init__(self) -> None:
        counts = {len(self.sizes), len(self.faithfulness), len(self.completeness), len(self.thresholds or self.sizes)}
        if len(counts) > 1 or 0 in counts:
            raise ValueError(f"a sweep with {sorted(counts)} parts; give the same number of each, at least one.")

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self.sizes)

    @property
    def values(self) -> Float64[Tensor, " part"]:
        """The faithfulness of each part."""
        return torch.tensor([score.value for score in self.faithfulness], dtype=torch.float64)

    def cpr(self, *, log: bool = False) -> float:
        """The area under faithfulness over the share kept; more is better, and overshoot counts as good.

        Args:
            log: Over the logarithm of the share.

        Raises:
            ValueError: Fewer than two sizes above 0.

        Example:
            >>> circuit.sweep(model, saes, pairs, sizes=(0.1, 0.5, 1.0)).cpr()  # doctest: +SKIP
            0.83
        """
        return area(self.sizes, self.values, log=log)

    def cmd(self, *, log: bool = False) -> float:
        """The area between faithfulness and 1 over the share kept; less is better.

        Args:
            log: Over the logarithm of the share.

        Raises:
            ValueError: Fewer than two sizes above 0.

        Example:
            >>> circuit.sweep(model, saes, pairs, sizes=(0.1, 0.5, 1.0)).cmd()  # doctest: +SKIP
            0.07
        """
        return area(self.sizes, (1 - self.values).abs(), log=log)

    def table(self) -> "rich.table.Table":
        """One row a part: size, nodes, edges, share of the active units, faithfulness, completeness.

        Example:
            >>> rich.print(sweep.table())  # doctest: +SKIP
        """
        from whence.results.circuit_sweep_views import table

        return table(self)

    def to_dataframe(self) -> "pandas.DataFrame":
        """The same as a pandas DataFrame, with the ends of the 95 % interval of the faithfulness.

        Raises:
            ImportError: No pandas: pip install pandas.

        Example:
            >>> sweep.to_dataframe()["faithfulness"].max()  # doctest: +SKIP
            0.97
        """
        from whence.results.circuit_sweep_views import frame

        return frame(self)

    def plot(self, path: str | Path | None = None) -> "matplotlib.figure.Figure":
        """A figure of faithfulness and completeness over the number of nodes or edges kept.

        Args:
            path: Where to save it as well: .png, .svg or .pdf.

        Raises:
            ImportError: No matplotlib: pip install 'whence[plot]'.
            ValueError: A suffix that is none of those.

        Example:
            >>> figure = sweep.plot("sweep.png")  # doctest: +SKIP
        """
        from whence.results.circuit_sweep_views import plot

        return plot(self, path)

    def __rich__(self) -> "rich.table.Table":
        return self.table()

    def __str__(self) -> str:
        best = max(self.faithfulness, key=lambda score: score.value)
        return f"{len(self)} parts by {self.by}; the most faithful: {best}"

    def __repr__(self) -> str:
        return f"CircuitSweep({self})"


def area(sizes: Sequence[float], values: Float64[Tensor, " part"], *, log: bool = False) -> float:
    """The integral of values over sizes, by trapezoids, from the smallest size to the largest; size 0 is left out.

    Args:
        sizes: In any order.
        values: One a size.
        log: Over the logarithm of the size.

    Raises:
        ValueError: Fewer than two sizes above 0.

    Example:
        >>> area([1.0, 0.5], torch.tensor([1.0, 0.0], dtype=torch.float64))
        0.25
    """
    at = torch.tensor(sizes, dtype=torch.float64)
    used = at > 0
    if int(used.sum()) < 2:
        raise ValueError(f"an area needs at least two sizes above 0; there are {int(used.sum())} of {len(at)}.")
    order = at[used].argsort()
    x, y = at[used][order], values[used][order]
    return float(torch.trapezoid(y, x.log() if log else x))
