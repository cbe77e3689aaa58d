"""The matrix of sites as a picture: what feeds what, site by site.

Colour is the share of a row's sum of sizes, so that late sites, whose numbers are larger, do not pale others;
blue adds and orange takes away. Pairs that nothing joins are grey. Shares from 1 % up are written into their squares
where there is room. Cost: none. It knows nothing of stores.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.dataset_results import SiteMatrix
from whence.results.drawing import INK, loaded
from whence.results.sheet import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    import matplotlib.figure

_SQUARE, _SIDES, _ENDS, _LEAST = 0.34, 2.4, 1.8, 3.6  # inches; the least has room for what colours mean
_WRITTEN = 40  # sites on a side, up to which shares are written
_UNJOINED = "#eceef1"
_MEANS = {"sum_abs": "Σ |{}|", "rms": "√mean {}²", "sum": "Σ {}"}


def plot(matrix: SiteMatrix, path: str | Path | None = None) -> "matplotlib.figure.Figure":
    """A heat map: a row a target site, a column a source site.

    Args:
        matrix: What to draw.
        path: Where to save it as well: .png, .svg or .pdf.

    Raises:
        ImportError: No matplotlib: pip install 'whence[plot]'.
        ValueError: A suffix that is none of those.
    """
    figures, colors = loaded("matplotlib.figure", path), loaded("matplotlib.colors", path)
    rows, columns = matrix.values.shape
    size = (_SIDES + _SQUARE * columns, max(_LEAST, _ENDS + _SQUARE * rows))
    figure = figures.Figure(figsize=size, layout="constrained", facecolor="white")
    axes, shares = figure.subplots(), shares_of(matrix)
    ramp = colors.LinearSegmentedColormap.from_list("whence", [NEGATIVE, "white", POSITIVE]).with_extremes(
        bad=_UNJOINED
    )
    limit = float(shares.abs().nan_to_num(0.0).max()) or 1.0
    image = axes.imshow(shares.numpy(), cmap=ramp, vmin=-limit, vmax=limit, aspect="equal")
    axes.set_xticks(range(columns), matrix.sources, rotation=90, parse_math=False)
    axes.set_yticks(range(rows), matrix.targets, parse_math=False)
    _frame(axes, matrix)
    if max(rows, columns) <= _WRITTEN:
        _write(axes, shares, limit)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 6 / size[1]), aspect=30, pad=0.02)
    bar.ax.set_ylim(-limit if (shares < 0).any() else 0, limit)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("share of the row's sum of sizes (written: in %)", size=8)
    bar.outline.set_visible(False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def shares_of(matrix: SiteMatrix) -> Float[Tensor, "target source"]:
    """Each number relative to its row's sum of sizes; nan where nothing joins the pair.

    Args:
        matrix: The numbers.
    """
    sizes = matrix.values.abs().nan_to_num(0.0).sum(1, keepdim=True)
    return matrix.values / torch.where(sizes > 0, sizes, 1.0)


def _frame(axes: Any, matrix: SiteMatrix) -> None:
    rows, columns = matrix.values.shape
    axes.set_xticks([place - 0.5 for place in range(1, columns)], [], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, rows)], [], minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0, labelsize=7)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("source", size=8)
    axes.set_ylabel("target", size=8)
    number = _MEANS[matrix.how].format(matrix.metric)
    by = "raw sums" if matrix.normalise == "none" else f"by {matrix.normalise}"
    axes.set_title(f"{number} between units, {by}", loc="left", size=9, parse_math=False)


def _write(axes: Any, shares: Float[Tensor, "target source"], limit: float) -> None:
    for row, column in (shares.abs() >= 0.01).nonzero().tolist():
        share = float(shares[row, column])
        ink = "white" if abs(share) > 0.65 * limit else INK
        axes.text(column, row, f"{100 * share:.0f}".replace("-", "−"), ha="center", va="center", size=6, color=ink)
