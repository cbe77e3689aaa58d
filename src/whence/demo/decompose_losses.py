"""What stochastic parameter decomposition minimises, as functions of tensors.

    mask             m = c + (1 − c) u                                     u uniform in [0, 1], drawn for each token
    divergence       mean over tokens of KL(model ‖ model with masked components)
    minimality       mean over tokens of Σ_matrices Σ_components c⁺ᵖ       c⁺ leaks above 1, so that it can come back
    faithfulness     mean over all entries of (W − (V U)ᵀ)²

The importance c is a number x that a network says, cut to [0, 1]. Beside the cut the masks would give x no slope: below
0 it gets a hundredth of the slope where that would raise it. Cost: that of the tensors. Knows nothing of models.

Source: Bushnaq et al. (2025), Stochastic Parameter Decomposition, section 2.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import kl_div

LEAK = 0.01
_TINY = 1e-12  # a power below 1 has no slope at 0


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        (x,) = given
        ctx.save_for_backward(x)
        return x.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Tensor:
        (x,), (slope,) = ctx.saved_tensors, slopes
        return torch.where(x <= 0, LEAK * slope.clamp(max=0.0), torch.where(x <= 1, slope, 0.0))


def importance(said: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the importances that masks are made of, in [0, 1].

    Example:
        >>> importance(torch.tensor([-0.5, 0.25, 3.0]))
        tensor([0.0000, 0.2500, 1.0000])
    """
    found = _Cut.apply(said)
    assert isinstance(found, Tensor)
    return found


def stochastic(least: Float[Tensor, "*shape"], chance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return masks between the least that the importances allow and 1; chances of 0 give the least itself.

    Example:
        >>> stochastic(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.5, 0.5, 0.5]))
        tensor([0.5000, 0.7500, 1.0000])
    """
    return least + (1 - least) * chance


def minimality(said: Iterable[Float[Tensor, "*batch _"]], power: float) -> Float[Tensor, ""]:
    """Return what the importances cost: for every matrix the mean over tokens, of the sum over components.

    Example:
        >>> minimality([torch.tensor([[0.5, -1.0], [0.5, 0.5]])], 2.0)
        tensor(0.3750)
    """
    leaky = (torch.where(x > 1, 1 + LEAK * (x - 1), x.clamp(0.0, 1.0)) for x in said)
    return torch.stack([(x + _TINY).pow(power).sum(-1).mean() for x in leaky]).sum()


def faithfulness(deltas: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, ""]:
    """Return the mean square of what components miss, over the entries of all matrices together.

    Example:
        >>> faithfulness([torch.ones(1, 2), torch.zeros(1, 2)])
        tensor(0.5000)
    """
    return torch.stack([delta.square().sum() for delta in deltas]).sum() / sum(delta.numel() for delta in deltas)


def divergence(
    logits: Float[Tensor, "document pos vocab"], truth: Float[Tensor, "document pos vocab"]
) -> Float[Tensor, ""]:
    """Return the mean over tokens of KL(truth ‖ logits), in nats.

    Example:
        >>> divergence(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 100.0]]]))
        tensor(0.6931)
    """
    each = kl_div(logits.log_softmax(-1), truth.log_softmax(-1), log_target=True, reduction="none")
    return each.sum(-1).mean()


def routes(
    count: int, shape: tuple[int, int], generator: torch.Generator | None = None
) -> Bool[Tensor, "matrix document pos"]:
    """Return which matrices are masked at each token: a number of them drawn evenly from 1 to all, then which ones."""
    ranks = torch.rand(count, *shape, generator=generator).argsort(0).argsort(0)
    return ranks < torch.randint(1, count + 1, shape, generator=generator)
