"""Whether a ranking of sources would come out alike on other data: one half of the windows against the other.

    overlap = |top k of one half ∩ top k of the other| / k        rank correlation: Spearman's, over all sources

The top k by size; the halves are the windows with odd numbers and those with even ones. Sums of a row are ranked as
they are: within a target every division but that by firing ranks alike. Blocks that were cut to their largest columns
are left out: what is large in one half was chosen by both. Cost: one pass over two statistics, and a sorting of every
row. It knows nothing of why halves differ.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.results.dataset_cells import chunks, part
from whence.results.dataset_normalise import check, statistic_of
from whence.results.dataset_opened import Opened

HALF = ".half"


@dataclass(frozen=True)
class SiteStability:
    """How alike the halves rank the sources of one target site's units.

    Args:
        targets: Units with a source in both halves.
        overlap: Mean share of the top k that both halves agree on.
        rank_correlation: Mean over units; 1 is the same order.
    """

    targets: int
    overlap: float
    rank_correlation: float


@dataclass(frozen=True)
class Stability:
    """How alike the halves are.

    Args:
        k: Sources compared.
        metric: Of which number.
        sites: By target site; nan where no unit has a source in both halves.
    """

    k: int
    metric: str
    sites: dict[str, SiteStability]

    @property
    def overlap(self) -> float:
        """Mean over all units of all sites."""
        return self._mean([one.overlap for one in self.sites.values()])

    @property
    def rank_correlation(self) -> float:
        """Mean over all units of all sites."""
        return self._mean([one.rank_correlation for one in self.sites.values()])

    def _mean(self, values: list[float]) -> float:
        counts = torch.tensor([float(one.targets) for one in self.sites.values()])
        weighed = torch.tensor(values).nan_to_num(0.0) * counts
        return float(weighed.sum() / counts.sum())


def stability(opened: Opened, k: int, metric: str) -> Stability:
    """How alike the two halves of the windows rank sources.

    Args:
        opened: The store.
        k: Sources of each target.
        metric: Which number.

    Raises:
        ValueError: Less than one source, fewer than two windows, or halves that were not kept.
    """
    check(opened.header, metric, "none")
    if k < 1 or len({window % 2 for window in opened.header.windows}) < 2:
        windows = len(opened.header.windows)
        raise ValueError(
            f"k={k} with {windows} windows: two halves need windows of both parities, and at least one source."
        )
    name = statistic_of(metric)
    sites = {site: _of_site(opened, site, name, k) for site in opened.header.targets}
    found = {site: one for site, one in sites.items() if one is not None}
    if not found:
        raise ValueError(f"halves of {name} were not kept here, so they cannot be compared.")
    return Stability(k, metric, found)


def _of_site(opened: Opened, site: str, name: str, k: int) -> SiteStability | None:
    header = opened.header
    whole = [pair for pair in header.pairs if pair[0] == site and opened.store.top(*pair) is None]
    pairs = [pair for pair in whole if {name, name + HALF} <= {*header.of(pair)}]
    if not pairs:
        return None
    columns = sum(len(header.sources[pair[1]].ids) for pair in pairs)
    overlaps, correlations = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.float64)]
    for some in chunks(len(header.targets[site].ids), columns):
        odd = torch.cat([part(opened.store, pair, name + HALF, some) for pair in pairs], 1)
        even = torch.cat([part(opened.store, pair, name, some) for pair in pairs], 1) - odd
        kept = (odd != 0).any(1) & (even != 0).any(1)
        overlaps.append(overlap(odd[kept], even[kept], min(k, columns)))
        correlations.append(rank_correlation(odd[kept], even[kept]))
    shared, ordered = torch.cat(overlaps), torch.cat(correlations)
    return SiteStability(len(shared), float(shared.mean()), float(ordered.mean()))


def overlap(first: Float[Tensor, "row column"], second: Float[Tensor, "row column"], k: int) -> Float[Tensor, " row"]:
    """Of each row, the share of the k largest sizes that both have.

    Args:
        first: Numbers of one half.
        second: Of the other.
        k: How many; ties go to the first.

    Example:
        >>> overlap(torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([[3.0, 1.0, 2.0]]), 2)
        tensor([0.5000], dtype=torch.float64)
    """
    return (_largest(first.abs(), k) & _largest(second.abs(), k)).sum(1).double() / k


def _largest(sizes: Float[Tensor, "row column"], k: int) -> Bool[Tensor, "row column"]:
    """Which are among the k largest of their row; of those that tie for the last places, the first."""
    least = sizes.topk(min(k, sizes.shape[1]), 1).values[:, -1:]
    above, tied = sizes > least, sizes == least
    return above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))


def rank_correlation(first: Float[Tensor, "row column"], second: Float[Tensor, "row column"]) -> Float[Tensor, " row"]:
    """Spearman's rank correlation of each row, ties by their mean rank; 0 where all numbers of a half are alike.

    Args:
        first: Numbers of one half.
        second: Of the other.

    Example:
        >>> round(float(rank_correlation(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[-1.0, 0.0, 9.0]]))), 6)
        1.0
    """
    ranks = [_ranks(values) for values in (first, second)]
    spreads = [rank.square().sum(1).sqrt() for rank in ranks]
    return ((ranks[0] * ranks[1]).sum(1) / (spreads[0] * spreads[1])).nan_to_num(0.0)


def _ranks(values: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Ranks, centred; those of equal numbers are the mean of the first and the last of their run."""
    ordered, place = values.sort(1)
    count = torch.arange(values.shape[1]).expand_as(place)
    begins = torch.ones_like(place, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(begins, count, 0).cummax(1).values
    ends = begins.roll(-1, 1)  # the first one begins a run always, so the last one ends one
    last = torch.where(ends, count, values.shape[1]).flip(1).cummin(1).values.flip(1)
    ranks = (first + last - values.shape[1] + 1).double() / 2
    return torch.empty_like(ranks).scatter_(1, place, ranks)
