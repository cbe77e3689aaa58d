"""The lines of a site that an intervention is about: its seat's tokens, in the order of examples, then positions."""

import torch
from torch import Tensor

from whence.interventions.seat import Seat
from whence.model.sites import Site, by_example


def mask_of(seat: Seat, tensor: Tensor) -> Tensor:
    """The seat's mask for a tensor, flattened or not."""
    if tensor.ndim > 2:
        return seat.mask(tensor.shape[0], tensor.shape[1], tensor.device)
    examples = len(seat.run.lengths)
    return seat.mask(examples, tensor.shape[0] // examples, tensor.device)


@torch.no_grad()
def lines_at(site: Site, tensor: Tensor, mask: Tensor, seen: dict[str, Tensor]) -> Tensor:
    """The site's values at the masked lines."""
    return by_example(site.value(tensor, seen), mask.shape[1])[mask]
