"""The number a circuit explains: one for each example, from the logits at its last token.

    pairs' own answers      logit[patch answer] - logit[clean answer]; without patch answers -logit[clean answer]
    any other target        what `whence.logit_difference`, `probability`, `metric` ... say

A larger number is more like the patch. Cost: that of the function. Knows nothing of sites.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric: its name, and the function of the logits that it is."""

    name: str
    function: Callable[[Float[Tensor, "n vocab"], Int[Tensor, " n"]], Float[Tensor, " n"]]

    def of(self, logits: Float[Tensor, "n vocab"], example: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The metric of these logits, which belong to these examples of the whole set."""
        return self.function(logits, example)


def answers_measure(clean: Int[Tensor, " example"], patch: Int[Tensor, " example"] | None) -> Measure:
    """The pairs' own answers.

    Example:
        >>> answers_measure(torch.tensor([0]), torch.tensor([1])).of(torch.tensor([[2.0, 5.0]]), torch.tensor([0]))
        tensor([3.])
    """

    def function(logits: Tensor, example: Tensor) -> Tensor:
        line = torch.arange(len(logits), device=logits.device)
        right = logits[line, clean.to(logits.device)[example]]
        return -right if patch is None else logits[line, patch.to(logits.device)[example]] - right

    name = "-logit[clean answer]" if patch is None else "logit[patch answer] - logit[clean answer]"
    return Measure(name, function)
