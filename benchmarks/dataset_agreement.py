"""How far the two sides of dataset.py agree: blocks of raw sums, pair by pair.

A pair whose block is nothing but rounding says nothing: embeddings into the lowest attention, where a live norm without
a term beside it takes away everything that the embedding adds. Those are named and left out.
"""

from collections.abc import Mapping

from torch import Tensor

NOTHING = 1e-4  # of the largest block of a metric: less is rounding


def agreement(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """A sentence a metric: the largest difference in a pair as a share of the pair's largest value.

    Args:
        ours: whence's blocks, "metric target source" -> [target, source].
        theirs: the peer's.
    """
    lines: list[str] = []
    for metric in dict.fromkeys(name.split()[0] for name in theirs):
        names = [name for name in theirs if name.split()[0] == metric and name in ours]
        if not names:
            continue
        sizes = {name: float(theirs[name].abs().max()) for name in names}
        kept = [name for name in names if sizes[name] > NOTHING * max(sizes.values())]
        apart = {name: float((ours[name] - theirs[name]).abs().max()) / sizes[name] for name in kept}
        worst = max(apart, key=lambda name: apart[name])
        _, target, source = worst.split()
        lines.append(
            f"{metric}: {len(kept)} pairs of {len(names)} (the others are rounding) differ by at most "
            f"{apart[worst]:.1e} of the pair's largest value ({source} to {target})."
        )
    return lines
