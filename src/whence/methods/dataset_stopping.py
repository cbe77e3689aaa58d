"""Whether a shard may stop early: how far the halves of its windows agree on each target's strongest sources.

    agreement = mean over targets of |top 10 of the odd windows ∩ top 10 of the even ones| / 10

over targets that have a source in both halves. It is asked after every fourth window, and depends on nothing but the
totals there, so that a shard that was interrupted stops where it would have. Cost: one pass over two statistics, and
the largest ten of every row, some rows at a time. It does not know other shards.
"""

import logging
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.dataset.totals import Totals
from whence.results.dataset_cells import chunks
from whence.results.dataset_stability import overlap

log = logging.getLogger(__name__)
_EVERY = 4  # windows
_TOP = 10  # sources of a target


def may_stop(totals: Totals, least: float | None) -> bool:
    """Whether a shard's halves agree well enough.

    Args:
        totals: Of the windows so far.
        least: The share of the strongest sources on which they must agree; None never stops.
    """
    if least is None or len(totals.windows) % _EVERY:
        return False
    found = [share for target in totals.targets for share in _shares(totals, target)]
    agreement = float(torch.cat(found).mean()) if found else 0.0
    log.info("after %d windows the halves share %.3f of the strongest sources", len(totals.windows), agreement)
    return agreement >= least


def _shares(totals: Totals, target: str) -> Iterator[Float[Tensor, " row"]]:
    """For some units of a site at a time, on what share the halves agree."""
    pairs = sorted(pair for pair in totals.blocks if pair[0] == target)  # ties go to the first, resumed or not
    blocks = [own for own in map(totals.blocks.__getitem__, pairs) if own["attr"].any()]
    columns = sum(own["attr"].shape[1] for own in blocks)
    for some in chunks(len(blocks[0]["attr"]), columns) if blocks else ():
        odd = torch.cat([_odd(own, some) for own in blocks], 1)
        even = torch.cat([own["attr"][some] for own in blocks], 1) - odd
        kept = (odd != 0).any(1) & (even != 0).any(1)
        yield overlap(odd[kept], even[kept], min(_TOP, columns))


def _odd(own: dict[str, Tensor], some: slice) -> Float[Tensor, "row column"]:
    """Sums of the windows with odd numbers, which are not kept where none of them added to the block."""
    return own["attr.half"][some] if "attr.half" in own else torch.zeros_like(own["attr"][some])
