"""Whether an importance function kept its word: a tensor for each matrix, of the right shape, finite, in [0, 1].

Cost: one pass over the importances. Knows nothing of how they were made.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor


def checked(
    said: Any, inputs: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Float[Tensor, "example pos _"]]:
    """The importances of these matrices, on their inputs' devices.

    Args:
        said: What the importance function gave back.
        inputs: What it was given, by site.
        counts: Components of each site.

    Raises:
        TypeError: Not tensors by site.
        ValueError: A site without importances, a wrong shape, or numbers outside [0, 1].

    Example:
        >>> import torch
        >>> found = checked({"0.attn.q": torch.ones(1, 3, 2)}, {"0.attn.q": torch.zeros(1, 3, 8)}, {"0.attn.q": 2})
        >>> found["0.attn.q"].shape
        torch.Size([1, 3, 2])
    """
    if not isinstance(said, Mapping):
        raise TypeError(f"the importance function gave a {type(said).__name__}; it gives tensors by site, as a dict")
    missing = [site for site in counts if site not in said]
    if missing:
        raise ValueError(
            f"the importance function says nothing of {', '.join(missing)}; it gives one tensor for each decomposed "
            "matrix, by its canonical name"
        )
    return {site: _one(site, said[site], inputs[site], count) for site, count in counts.items()}


def _one(site: str, said: Any, given: Tensor, count: int) -> Tensor:
    if not isinstance(said, Tensor) or not said.is_floating_point():
        found = said.dtype if isinstance(said, Tensor) else type(said).__name__
        raise TypeError(f"the importances of {site} are {found}; they are a tensor of floating-point numbers")
    wanted = (*given.shape[:2], count)
    if said.shape != wanted:
        raise ValueError(
            f"the importances of {site} have shape {tuple(said.shape)}, and [example, pos, component] = {wanted} is "
            "wanted"
        )
    # NaN fails both comparisons; one wait for the device a matrix.
    if not bool(((said >= 0) & (said <= 1)).all()):
        low, high = float(said.min()), float(said.max())
        raise ValueError(
            f"the importances of {site} go from {low:.4g} to {high:.4g}; they are finite and in [0, 1] (clamp them)"
        )
    return said.detach().to(given.device)
