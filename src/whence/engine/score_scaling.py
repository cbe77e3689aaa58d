"""What a model multiplies q . k with before its softmax, read from what the softmax was given.

The slope of the given scores over q . k, each query's mean over the keys it sees taken from both: what all keys share
no softmax sees, and some families subtract a maximum. A softcap is undone where it is not saturated, then checked
everywhere. Queries and keys that are all zero have no slope, and need none: 0.

Cost: the scores of one layer in float64. Refuses scores that are no multiple of q . k, such as those with ALiBi.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whence.engine.tolerance import tolerance_of
from whence.errors import UnsupportedModelError
from whence.model.attention import Scored
from whence.model.layout import Writer


def scaling_of(writer: Writer, scored: Scored) -> float:
    """What the model multiplies q . k with.

    Raises:
        UnsupportedModelError: what its softmax is given is no multiple of q . k, up to a constant over keys.
    """
    length = scored.key.shape[2]
    query, key = scored.query[0].detach().double(), scored.key[0].detach().double()
    products = query @ key.repeat_interleave(len(query) // len(key), 0).mT
    given, seen = scored.score[0, :, :, :length].detach().double(), scored.pattern[0].detach() > 0
    if length == 1:
        raise ValueError("the prompt has one token, which attends to nothing else; give a longer one")
    if not query.any() and not key.any():
        return 0.0
    plain = given if scored.softcap is None else scored.softcap * (given / scored.softcap).clamp(-0.9, 0.9).atanh()
    usable = seen if scored.softcap is None else seen & (given.abs() < 0.9 * scored.softcap)
    centred = _centred(products, usable)
    scaling = float((centred * _centred(plain, usable)).sum() / centred.square().sum())
    again = scaling * products
    again = again if scored.softcap is None else scored.softcap * (again / scored.softcap).tanh()
    gap = float(_centred(again - given, seen).norm() / _centred(given, seen).norm().clamp_min(1e-30))
    if not gap <= tolerance_of(scored.query.dtype):
        raise refusal(writer, f"its scores are off by {gap:.0e} from multiples of query . key (a position bias?)")
    return scaling


def _centred(x: Float[Tensor, "head query key"], seen: Bool[Tensor, "head query key"]) -> Tensor:
    """Less each query's mean over the keys it sees; 0 elsewhere."""
    inside = torch.where(seen, x, 0.0)
    mean = inside.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(seen, inside - mean, 0.0)


def refusal(writer: Writer, why: str) -> UnsupportedModelError:
    """The error that says why an attention's scores are beyond this."""
    return UnsupportedModelError(
        f"{writer.key} ({type(writer.module).__name__}): {why}; its scores cannot be attributed"
    )
