"""How much of what a model does a circuit does: faithfulness and completeness, with an interval over examples.

    (m(C) - m(0)) / (m(M) - m(0))       m(C) the metric with all but the circuit ablated (completeness: with the circuit
                                        ablated), m(0) with everything ablated, m(M) of the model as it is

Each m is a mean over examples, so the sign of the metric does not matter; 1 is the model, 0 is nothing. A ratio can
pass 1 and fall below 0. Cost: resamples × examples. It knows nothing of how the metric was computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from whence.results.words import counted

Kind = Literal["faithfulness", "completeness"]


@dataclass(frozen=True, eq=False, repr=False)
class CircuitScore:
    """A circuit's faithfulness or completeness on some examples.

    Args:
        kind: Which of the two.
        chosen: m(C) of each example.
        empty: m(0) of each example.
        model: m(M) of each example.
        nodes: How many nodes of the circuit were kept or ablated; without errors where these are all kept or removed,
            and without what was left alone.
        edges: How many edges were; None where nodes were ablated.
        active: How many units of the model say something other than nothing on some token of the examples, counted
            like `nodes` (in a circuit with slots once a slot).
        active_nodes: How many of the circuit's nodes are among these.
        settings: Ablation, errors and the other choices, JSON-able.

    Raises:
        ValueError: Different numbers of examples, or none.

    Example:
        >>> one = torch.ones(4, dtype=torch.float64)
        >>> score = CircuitScore("faithfulness", 2 * one, 0 * one, 4 * one, 3, None, 60, 3)
        >>> score.value, score.share
        (0.5, 0.05)
    """

    kind: Kind
    chosen: Float64[Tensor, "_"]
    empty: Float64[Tensor, "_"]
    model: Float64[Tensor, "_"]
    nodes: int
    edges: int | None
    active: int
    active_nodes: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        sizes = {len(self.chosen), len(self.empty), len(self.model)}
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError(f"a score of {sorted(sizes)} examples; give the same number for all three, at least one.")

    @property
    def value(self) -> float:
        """The ratio of the means; NaN where the model does no more than nothing."""
        return float(_ratio(*(one.mean() for one in (self.chosen, self.empty, self.model))))

    @property
    def by_example(self) -> Float64[Tensor, " example"]:
        """The ratio of each example: NaN where its own metric does not change from the model to nothing."""
        return _ratio(self.chosen, self.empty, self.model)

    @property
    def share(self) -> float:
        """Of the units that say something, the share that the circuit has."""
        return self.active_nodes / self.active if self.active else 0.0

    def interval(self, level: float = 0.95, n_resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """A percentile interval of the ratio over resampled examples.

        Args:
            level: Share of the resamples inside.
            n_resamples: How many draws of as many examples, with replacement.
            seed: Of the draws.

        Raises:
            ValueError: Numbers out of range.

        Example:
            >>> score.interval()  # doctest: +SKIP
            (0.88, 0.95)
        """
        if n_resamples < 1 or not 0 < level < 1:
            raise ValueError(
                f"n_resamples={n_resamples}, level={level}: at least one resample, and a level within 0 to 1."
            )
        drawn = torch.randint(
            len(self.model), (n_resamples, len(self.model)), generator=torch.Generator().manual_seed(seed)
        )
        ratios = _ratio(*(one[drawn].mean(1) for one in (self.chosen, self.empty, self.model)))
        ends = ratios.new_tensor([(1 - level) / 2, (1 + level) / 2])
        low, high = ratios.nanquantile(ends).tolist()
        return low, high

    def __str__(self) -> str:
        low, high = self.interval()
        what = counted(self.nodes, "node") + ("" if self.edges is None else f", {counted(self.edges, 'edge')}")
        active, examples = counted(self.active, "active unit"), counted(len(self.model), "example")
        share = f"{self.share:.1%} of {active}; {examples}"
        return f"{self.kind} {self.value:.3f} ({low:.3f} to {high:.3f}) of {what}: {share}"

    def __repr__(self) -> str:
        return f"CircuitScore({self})"


def _ratio(chosen: Tensor, empty: Tensor, model: Tensor) -> Tensor:
    span = model - empty
    return torch.where(span != 0, (chosen - empty) / span, torch.nan)
