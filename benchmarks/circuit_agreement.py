"""How far the two sides of circuit.py agree, where what they compute means the same.

Node effects: the peer's integrated gradients are its attribution patching, because every step reads the logits of the
first; so they are compared with whence's attribution patching. Edges: of one pair at a time, between nodes that are
kept in it. The peer gives 0 for every edge out of an error, so those are told apart and not compared.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def effects_agree(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], features: int) -> list[str]:
    """The largest difference of node effects, in a sentence.

    Args:
        ours: [pair, position, feature + 1] a site, the error last.
        theirs: likewise.
        features: how many a site has.
    """
    lines: list[str] = []
    for what, part in (("features", slice(0, features)), ("errors", slice(features, None))):
        difference = max(float((ours[site][..., part] - one[..., part]).abs().max()) for site, one in theirs.items())
        largest = max(float(one[..., part].abs().max()) for one in theirs.values())
        lines.append(f"Effects of {what}: largest difference {difference:.0e} of {largest:.2g}.")
    return lines


def edges_agree(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], features: int) -> list[str]:
    """The largest difference of edges out of features, and what the peer has out of errors; a sentence each.

    Args:
        ours: source and target [entry, 4] as (pair, site, position, feature), and weight.
        theirs: likewise, every entry once.
        features: how many a site has; this is the error's number.
    """
    weights = looked_up(ours, theirs)
    error = theirs["source"][:, 3] == features
    difference = (weights - theirs["weight"])[~error].abs()
    largest, nonzero = float(theirs["weight"].abs().max()), int((theirs["weight"] != 0).sum())
    found = f"largest difference {float(difference.max()):.0e} of {largest:.2g}, {len(difference)} compared"
    lines = [f"Edges out of features: {found}, {nonzero} of them not 0."]
    if error.any():
        largest = [float(one[error].abs().max()) for one in (theirs["weight"], weights)]
        lines.append(
            f"Edges out of errors: the largest is {largest[0]:.2g} of the peer's, {largest[1]:.2g} of whence's."
        )
    return lines


def looked_up(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """Our weight of each of their entries, 0 where there is none."""
    rows = [torch.cat([side["source"], side["target"]], dim=1).long() for side in (ours, theirs)]
    _, number = torch.cat(rows).unique(dim=0, return_inverse=True)
    mine, wanted = number[: len(rows[0])], number[len(rows[0]) :]
    weight = torch.zeros(int(number.max()) + 1)
    weight[mine] = ours["weight"]
    return weight[wanted]
