"""What raw sums are divided by, chosen when they are asked for.

    normalise    divided by                  a value is then
    token        N                           the mean over tokens, in units of the target (its square for squares)
    source       Σ c of the source           the mean over the source's firings; of a token, over its occurrences
    share        Σ c |y| of the target       a share of the target; shares of `attr_abs` over a whole sum add to 1
    target_rms   N · √(Σ y² / N)             the mean over tokens, in typical sizes of the target
    none         1                           the raw sum

Mean squares are divided by N, Σ c, Σ y² or 1, and have no share; `rms` is the root of what comes out. A value is nan
where its divisor is 0: a source that never fires has no mean over its firings. Cost: one division a number.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.dataset_axes import METRICS, SIGNED, Axis, Header

Metric = Literal["attr", "attr_abs", "mean_squared_attr", "rms"]
Normalise = Literal["token", "source", "share", "target_rms", "none"]
NORMALISERS: tuple[Normalise, ...] = get_args(Normalise)


def statistic_of(metric: str) -> str:
    """The raw sum that a metric is made of."""
    return "mean_squared_attr" if metric == "rms" else metric


def check(header: Header, metric: str, normalise: str) -> None:
    """Refuse a metric that was not counted, and a division that means nothing.

    Args:
        header: Of the store.
        metric: As asked for.
        normalise: As asked for.

    Raises:
        ValueError: With what there is instead.
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric={metric!r} is none of {', '.join(get_args(Metric))}.")
    if normalise not in NORMALISERS:
        raise ValueError(f"normalise={normalise!r} is none of {', '.join(NORMALISERS)}.")
    if not any(statistic_of(metric) in header.of(pair) for pair in header.pairs):
        counted = [name for name in METRICS if name in header.statistics]
        raise ValueError(
            f"{statistic_of(metric)} was not counted here, only {', '.join(counted) or 'nothing'}. "
            "Name it in metrics= of whence.dataset_attributions."
        )
    if normalise == "share" and metric not in SIGNED:
        raise ValueError(
            f"{metric} has no share: squares of parts do not add up to their target. "
            "Use normalise='target_rms' to compare them with the target's own size."
        )


def divisor(metric: str, normalise: str, tokens: int, target: Axis, source: Axis) -> Float[Tensor, "row column"]:
    """What the raw sums of a block are divided by; rows or columns that share it are 1.

    Args:
        metric: Of which.
        normalise: By what.
        tokens: N.
        target: The rows.
        source: The columns.

    Raises:
        ValueError: The store lacks the quantity.
    """
    if normalise == "source":
        return _quantity(source, "importance", normalise)[None, :]
    if normalise == "share":
        return _quantity(target, "absolute", normalise)[:, None]
    if normalise == "target_rms":
        square = _quantity(target, "square", normalise)[:, None]
        return (square * tokens).sqrt() if metric in SIGNED else square
    return torch.full((1, 1), tokens if normalise == "token" else 1, dtype=torch.float64)


def _quantity(axis: Axis, name: str, normalise: str) -> Float[Tensor, " line"]:
    if name not in axis.quantities:
        raise ValueError(f"normalise={normalise!r} needs the {name} of {axis.site}, not kept here; use 'token'.")
    return axis.quantities[name].double()
