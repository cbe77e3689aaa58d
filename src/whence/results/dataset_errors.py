"""How sure a mean over tokens is: standard errors from windows of batches.

    μ = S / N,   m_w = S_w / n_w      se² = Σ_w n_w (m_w − μ)² / ((B − 1) N) = (Σ_w S_w² / n_w − S² / N) / ((B − 1) N)

S_w the sum of window w of n_w tokens, B windows, N tokens. Tokens of one text resemble each other, windows of several
batches much less, which is why windows are what is counted. Cost: a few products a number. It knows nothing of
dependence between windows, nor of the spread of what a value is divided by, which counts as given.
"""

from jaxtyping import Float
from torch import Tensor

SQUARE = ".square"  # behind a metric's name: Σ over windows of (its sum)² / (its tokens)


def of_mean(
    total: Float[Tensor, "row column"], square: Float[Tensor, "row column"], tokens: int, windows: int
) -> Float[Tensor, "row column"]:
    """The standard error of `total / tokens`.

    Args:
        total: S.
        square: Σ S_w² / n_w.
        tokens: N.
        windows: B, at least 2.

    Example:
        >>> import torch
        >>> one, two = torch.tensor([[1.0]]), torch.tensor([[3.0]])  # sums of two windows of 2 tokens each
        >>> of_mean(one + two, one**2 / 2 + two**2 / 2, 4, 2)
        tensor([[0.5000]])
    """
    return ((square - total**2 / tokens) / ((windows - 1) * tokens)).clamp(min=0).sqrt()


def of_root(error: Float[Tensor, "row column"], root: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """The standard error of a root, by the delta method: that of what stands under it over twice the root.

    Args:
        error: Of the number under the root.
        root: The root; where it is 0 every square is, and so is the error.

    Example:
        >>> import torch
        >>> of_root(torch.tensor([[0.4]]), torch.tensor([[2.0]]))
        tensor([[0.1000]])
    """
    return (error / (2 * root)).where(root != 0, root)
