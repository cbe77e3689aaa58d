"""Blocks by vector-Jacobian products through the cut model: for whatever no closed form reaches, and their check.

    attr, attr_abs       Σ_q before the pull: one backward pass a target unit and metric
    mean_squared_attr    one backward pass a (target position, target unit) that counts, all rows of a batch at once
                         (rows of a batch do not see one another)

Cost: one cut forward pass a batch and those backward passes, each as far as the nearest leaves; cotangents are batched,
as many as BUDGET numbers allow for them and for what they say of the sources.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.passing import Passed
from whence.engine.dataset.sites import Reading, Writing

AT_ONCE = 16  # cotangents in one batched backward pass, at most
BUDGET = 1 << 26  # numbers in them and in what comes of them


@dataclass(frozen=True, eq=False)
class Backward:
    """The pairs of one target site that are pulled.

    Args:
        reading: the target site.
        writings: its sources.
        summed_squares: as in spd's pull request 413, squares of sums over target positions, and embeddings squared by
            coordinate before they are contracted; for comparison only.
    """

    reading: Reading
    writings: tuple[Writing, ...]
    summed_squares: bool = False

    def count(
        self, passed: Passed, heard: Heard, told: Mapping[str, Told], window: Window, metrics: Sequence[str]
    ) -> None:
        """Add one batch."""
        shape = passed.batch.ids.shape
        for metric in metrics:
            weight = heard.weights[metric].unflatten(0, shape)
            square = metric == "mean_squared_attr"
            rows = _by_position if square and not self.summed_squares else _summed
            for units, cotangents in rows(weight, self._at_once(weight, told)):
                gradients = _pulled(passed, self.reading.site, units, cotangents, self.writings)
                for writing, gradient in zip(self.writings, gradients, strict=True):
                    if gradient is None:
                        continue
                    part = self._part(gradient, passed, writing, told[writing.site], square)
                    pair = (self.reading.site, writing.site)
                    block = window.into(pair, metric, (weight.shape[-1], len(writing.ids)), weight)
                    block.index_add_(0, units, part)

    def _at_once(self, weight: Tensor, told: Mapping[str, Told]) -> int:
        """How many cotangents are pulled together, never less than one."""
        numbers = weight.numel() + sum(told[writing.site].value.numel() for writing in self.writings)
        return min(max(BUDGET // max(numbers, 1), 1), AT_ONCE)

    def _part(
        self, gradient: Float[Tensor, "k example pos *unit"], passed: Passed, writing: Writing, told: Told, square: bool
    ) -> Float[Tensor, "k source"]:
        """What a row of cotangents says of each source."""
        k, value = len(gradient), told.value
        product = gradient.flatten(1, 2) * value  # k, token, ...
        if square and self.summed_squares:
            product = product.square()
        if writing.kind != "units":
            product = product.sum(-1)
        if square and not self.summed_squares:
            product = product.square()
        if writing.kind in ("units", "parts"):
            return product.sum(1)
        if told.bucket is None:
            return product.sum(1, keepdim=True)
        return product.new_zeros(k, len(writing.ids)).index_add_(1, told.bucket, product)


def _summed(weight: Float[Tensor, "example pos unit"], at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A cotangent for each unit that counts anywhere: its weights at all positions."""
    for units in _some((weight != 0).any(0).any(0).nonzero()[:, 0], at_once):
        cotangents = weight.new_zeros(len(units), *weight.shape)
        cotangents[torch.arange(len(units)), :, :, units] = weight[..., units].movedim(-1, 0)
        yield units, cotangents


def _by_position(weight: Float[Tensor, "example pos unit"], at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A cotangent for each (position, unit) that counts in any example: its weights there."""
    for some in _some((weight != 0).any(0).nonzero(), at_once):
        position, units = some.unbind(1)
        cotangents = weight.new_zeros(len(some), *weight.shape)
        cotangents[torch.arange(len(some)), :, position, units] = weight[:, position, units].T
        yield units, cotangents


def _some(index: Tensor, at_once: int) -> Iterator[Tensor]:
    """As many at once as are pulled together; none where nothing counts."""
    return (some for some in index.split(at_once) if len(some))


def _pulled(
    passed: Passed, site: str, units: Tensor, cotangents: Tensor, writings: Sequence[Writing]
) -> Sequence[Tensor | None]:
    value = passed.tape.values[site]
    leaves = [passed.tape.leaves[writing.site] for writing in writings]
    if not value.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(value, leaves, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=True)
