"""The parts of a frozen model that carry directions: norms at a held scale, attention at a held pattern, linear skips.

Norms act as N(x) = gain * c(x) / sigma + bias with sigma recorded, attention as z[q] = sum_k A[h, q, k] v[k] with A
recorded. A covector g [q, n, d] above an attention sublayer goes below it as

    g'[k] = sum_h sum_q A'[h, k, q] (g[q] W_O,h') W_V,h'

where every scale that stands on the way (post-norm at q, norm at k, multipliers) is folded into A', and every gain and
centring into W_O' and W_V': two matrix products and one mixing, nothing elementwise. Constants on the way (biases of
values, outputs and norms) do not depend on any source; they are pushed forward once a prompt (`constant`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.workspace import Workspace
from whence.model.norms import NormMap

MIXED_AT_ONCE = 128  # keys: long prompts skip the queries before each block of keys


@dataclass(frozen=True, eq=False)
class NormAt:
    """A norm at the scales of one prompt; None for the norm means none stands there."""

    norm: NormMap | None
    inverse: Float[Tensor, " pos"]  # 1 / sigma, times a constant multiplier after the norm
    multiplier: float = 1.0  # that multiplier alone, which the norm's bias gets too

    def pull(
        self, covector: Float[Tensor, "n d_model"], position: Tensor | slice, *, gain: bool = True
    ) -> Float[Tensor, "n d_model"]:
        """Covectors before the norm, each at its own position. Without the gain: as read between c(x)/sigma and it."""
        if self.norm is not None:
            covector = self.norm.pull(covector) if gain else self.norm.centre(covector)
        return covector * self.inverse[position][:, None]

    def push(self, x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """The linear part of the norm, a row a position."""
        return self.gained(x) * self.inverse[:, None]

    def folded(self, matrix: Float[Tensor, "out d_model"]) -> Float[Tensor, "out d_model"]:
        """A matrix that acts on what the norm put out, as one that acts on what it was given; the scale is left out."""
        return matrix if self.norm is None else self.norm.pull(matrix)

    def gained(self, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """Vectors given to the norm, as it puts them out; the scale is left out."""
        return rows if self.norm is None else self.norm.gain.to(rows) * self.norm.centre(rows)

    @property
    def bias(self) -> Float[Tensor, "*d_model"]:
        """What the norm adds whatever it is given; without a norm, a single zero."""
        if self.norm is None:
            return self.inverse.new_zeros(())
        return self.multiplier * self.norm.bias.to(self.inverse)


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """One attention sublayer with its pattern held."""

    output: Float[Tensor, "d_model channel"]  # W_O', columns by (group, head of the group, channel)
    value: Float[Tensor, "group d_head d_model"]  # W_V'
    pattern: Float[Tensor, "group key query share"]  # A', share: the query heads of a group
    constant: Float[Tensor, "pos d_model"]  # what the biases on the way add to the stream

    @property
    def heads(self) -> int:
        """How many query heads there are."""
        return self.pattern.shape[0] * self.pattern.shape[3]

    def pull_one(
        self, covector: Float[Tensor, "n d_model"], position: list[int], length: int, space: Workspace
    ) -> Float[Tensor, "length n d_model"]:
        """Covectors that stand at one position each (ascending), below: spread over the keys that position sees.

        With nothing but its own position to carry, values are projected before they are spread: d_head times cheaper.
        The result lies in the workspace.
        """
        groups, _, _, share = self.pattern.shape
        heads = (covector @ self.output).view(len(covector), groups, share, -1).permute(1, 2, 0, 3)
        carried = torch.bmm(heads.flatten(1, 2), self.value).view(groups * share, *covector.shape)
        below = space.take("spread", (length, *covector.shape), covector).zero_()
        for p, start, end in runs(position):
            weights = self.pattern[:, : p + 1, p].permute(1, 0, 2).reshape(p + 1, -1)
            part = carried[:, start:end].reshape(len(carried), -1)
            below[: p + 1, start:end] = (weights @ part).view(p + 1, end - start, -1)
        return below

    def add_pulled(
        self,
        covector: Float[Tensor, "pos n d_model"],
        into: Float[Tensor, "pos n d_model"],
        space: Workspace | None = None,
    ) -> None:
        """Add to `into` what the covectors become below; `into` may be the covectors themselves."""
        length, n, width = covector.shape
        groups, _, _, share = self.pattern.shape
        d_head, space = self.value.shape[1], space or Workspace()
        heads = space.take("heads", (length * n, self.output.shape[1]), covector)
        torch.mm(covector.reshape(length * n, width), self.output, out=heads)
        queries = space.take("queries", (groups, length, share, n, d_head), covector)
        queries.copy_(heads.view(length, n, groups, share, d_head).permute(2, 0, 3, 1, 4))
        values = space.take("heads", (length, n, groups, d_head), covector)  # what was there has been copied
        for k in range(0, length, MIXED_AT_ONCE):
            values[k : k + MIXED_AT_ONCE] = self._mixed(queries, k).permute(1, 2, 0, 3)
        into.view(length * n, width).addmm_(values.view(length * n, -1), self.value.flatten(0, 1))

    def _mixed(
        self, queries: Float[Tensor, "group query share n d_head"], start: int
    ) -> Float[Tensor, "group _ n d_head"]:
        """A block of keys: what each is sent by the queries that see it."""
        groups, length, share, n, d_head = queries.shape
        pattern = self.pattern[:, start : min(start + MIXED_AT_ONCE, length), start:length]
        sent = torch.bmm(pattern.flatten(2), queries.view(groups, length * share, -1)[:, start * share :])
        return sent.view(groups, -1, n, d_head)

    def push(self, x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """What the sublayer adds to the stream for this part of the stream: the transpose of the pull."""
        values = torch.einsum("kd,ged->gke", x, self.value)
        heads = torch.einsum("gke,gkqr->qgre", values, self.pattern)
        return heads.flatten(1) @ self.output.T

    def pairs(self, x: Float[Tensor, "pos d_model"]) -> list[Float[Tensor, "_ d_model"]]:
        """For each query position, what it receives from each key it sees: sum over keys is `push`."""
        values = torch.einsum("kd,ged->gke", x, self.value)
        heads = (torch.einsum("gke,gkr->kgre", values[:, : q + 1], self.pattern[:, : q + 1, q]) for q in range(len(x)))
        return [one.flatten(1) @ self.output.T for one in heads]


@dataclass(frozen=True, eq=False)
class SkipMap:
    """A dictionary's linear skip: what it reads comes out at the same position."""

    matrix: Float[Tensor, "d_model d_model"]  # from what is read to the stream, gains of norms included
    scale: Float[Tensor, " pos"]  # zero where no dictionary stands
    constant: Float[Tensor, "pos d_model"]

    def pull(self, covector: Float[Tensor, "*rows d_model"], scale: Tensor) -> Float[Tensor, "*rows d_model"]:
        """Covectors below, each times the scale of its position."""
        return (covector @ self.matrix) * scale

    def push(self, x: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """The linear part, forward."""
        return (x @ self.matrix.T) * self.scale[:, None]


def runs(position: list[int]) -> list[tuple[int, int, int]]:
    """(position, start, end) of each stretch of equal positions."""
    starts = [i for i, p in enumerate(position) if i == 0 or position[i - 1] != p]
    return [(position[a], a, b) for a, b in zip(starts, [*starts[1:], len(position)], strict=True)]
