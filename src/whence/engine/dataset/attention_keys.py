"""Edges from keys to what an attention's output map reads, in closed form, through the softmax.

    A[q, p, t, s] = scale Σ_h dS_h[t, q, p] (q_h[q] · R_p U_k,s) (a c)_s[p]
    dS_h[t, q, p] = A_h[q, p] (G_h[t, p] − Ḡ_h[t, q])       G_h[t, p] = V_o,h,t · v[p], Ḡ its mean under A_h[q, ·]

Few units active: query by query, the targets that count there meet the sources before them. Many: linear metrics sum
over q before they meet a source; squares are products over (q, p) for each pair of heads. A local derivative: it belongs
to no sum. Cost a row of L tokens: few, H operations for each (active target at q, active source at p ≤ q); many,
H L² e T + L d T S and, for the square, H(H + 1)/2 · L²/2 · T S.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.dataset.attention_queries import by_head, by_head_of
from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.local import BUDGET
from whence.engine.dataset.passing import Attended
from whence.engine.dataset.rotations import Compared
from whence.engine.dataset.sites import Reading, Writing
from whence.model.attention import expand_groups

MANY = 0.03  # share of (target, source) pairs active at a pair of positions from which dense products are faster
SQUARE = "mean_squared_attr"


@dataclass(frozen=True, eq=False)
class _Row:
    """One row of a batch."""

    pattern: Float[Tensor, "head query key"]
    query: Float[Tensor, "head query d_head"]
    G: Float[Tensor, "target head key"]
    weights: Mapping[str, Float[Tensor, "query target"]]
    value: Float[Tensor, "key source"]  # a c of units; ones where the vectors below are whole
    turned: Float[Tensor, "key source head d_head"]  # what each source adds to each head's key, at each position


@dataclass(frozen=True, eq=False)
class KeyKernel:
    """Edges from one attention's keys to its output components.

    Args:
        reading: the components of the output map.
        writings: source sites of the key map.
        how: how it compares.
        summed_squares: square sums over target positions, as spd's pull request 413 does; for comparison only.
    """

    reading: Reading
    writings: tuple[Writing, ...]
    how: Compared
    summed_squares: bool = False

    def count(
        self, one: Attended, heard: Heard, told: Mapping[str, Told], window: Window, metrics: tuple[str, ...]
    ) -> None:
        """Add one batch."""
        rows, heads, length = one.pattern.shape[0], one.pattern.shape[1], one.pattern.shape[-1]
        values = expand_groups(one.value, heads)
        weights = {metric: heard.weights[metric].unflatten(0, (rows, length)) for metric in metrics}
        V = by_head_of(self.reading, heads)
        for row in range(rows):
            own = {metric: weight[row] for metric, weight in weights.items()}
            G = torch.einsum("thi,hpi->thp", V, values[row])
            value = torch.cat(
                [self._value(w, told[w.site]).unflatten(0, (rows, length))[row] for w in self.writings], 1
            )
            turned = self._turned(one, told, row)
            found = _Row(one.pattern[row], one.query[row], G, own, value, turned)
            blocks = _many(found, self.summed_squares) if _is_many(found) else _few(found, self.summed_squares)
            for metric, block in blocks.items():
                parts = block.split([len(writing.ids) for writing in self.writings], 1)
                for writing, part in zip(self.writings, parts, strict=True):
                    window.add((self.reading.site, writing.site), metric, part)

    @staticmethod
    def _value(writing: Writing, told: Told) -> Float[Tensor, "token source"]:
        return told.value if writing.kind == "units" else (told.value != 0).any(-1, keepdim=True).to(told.value)

    def _turned(self, one: Attended, told: Mapping[str, Told], row: int) -> Float[Tensor, "key source head d_head"]:
        heads, width, length = one.pattern.shape[1], one.query.shape[-1], one.pattern.shape[-1]
        R = self.how.scale * self.how.key[:length].to(one.key)
        parts: list[Tensor] = []
        for writing in self.writings:
            if writing.U is not None:
                parts.append(torch.einsum("pij,nhj->pnhi", R, by_head(writing.U, heads, width)))
            else:
                vector = told[writing.site].value.unflatten(0, (-1, length))[row]
                parts.append(torch.einsum("pij,phj->phi", R, by_head(vector, heads, width))[:, None])
        return torch.cat(parts, 1)


def _is_many(row: _Row) -> bool:
    active = torch.stack([weight != 0 for weight in row.weights.values()]).any(0)
    return float(active.float().mean() * (row.value != 0).float().mean()) > MANY


# ---------------------------------------------------------------- few
def _few(row: _Row, summed_squares: bool) -> dict[str, Float[Tensor, "target source"]]:
    """Query by query, what counts there with what counts before it."""
    position, unit = row.value.nonzero(as_tuple=True)
    turned = row.turned[position, unit] * row.value[position, unit][:, None, None]
    active = torch.stack([weight != 0 for weight in row.weights.values()]).any(0)
    found = {m: row.value.new_zeros(len(row.G), row.value.shape[1]) for m in row.weights}
    for targets in torch.arange(len(row.G), device=row.G.device).split(max(4 * BUDGET // max(len(unit), 1), 1)):
        sums = {metric: row.value.new_zeros(len(targets), len(unit)) for metric in row.weights}
        for q, some, end in _queries(active[:, targets], position):
            pairs = _pairs(row, targets[some], q, position[:end], turned[:end])
            for metric, weight in row.weights.items():
                own = pairs * weight[q, targets[some]][:, None]
                own = own.square() if metric == SQUARE and not summed_squares else own
                sums[metric][:, :end].index_add_(0, some, own)
        for metric, total in sums.items():
            total = total.square() if metric == SQUARE and summed_squares else total
            found[metric][targets] = found[metric][targets].index_add(1, unit, total)
    return found


def _queries(active: Tensor, position: Tensor) -> Iterator[tuple[int, Int[Tensor, " k"], int]]:
    """Queries at which targets count, those targets, and how many sources stand at or before the query."""
    ends = torch.searchsorted(position, torch.arange(len(active), device=active.device), right=True).tolist()
    counts = active.sum(1).tolist()
    split = active.nonzero()[:, 1].split(counts)
    for q, (end, targets) in enumerate(zip(ends, split, strict=True)):
        if end and len(targets):
            yield q, targets, end


def _pairs(row: _Row, targets: Tensor, q: int, position: Tensor, turned: Tensor) -> Float[Tensor, "k n"]:
    A, G = row.pattern[:, q], row.G[targets]
    dS = A * (G - (G * A).sum(-1, keepdim=True))  # target, head, key
    reach = (turned * row.query[:, q]).sum(-1)  # source, head
    return (dS[..., position] * reach.T).sum(1)


# ---------------------------------------------------------------- many
def _many(row: _Row, summed_squares: bool) -> dict[str, Float[Tensor, "target source"]]:
    """Dense products."""
    found: dict[str, Tensor] = {}
    for metric, weight in row.weights.items():
        if metric == SQUARE and not summed_squares:
            found[metric] = _squares(row, weight)
        else:
            found[metric] = _summed(row, weight, metric == SQUARE)
    return found


def _summed(row: _Row, weight: Float[Tensor, "query target"], square: bool) -> Float[Tensor, "target source"]:
    """Over target positions first: a covector for each target at each key, which then meets the sources there."""
    heads, length, width = row.query.shape
    read = (row.pattern[..., None] * row.query[:, :, None]).flatten(2)  # head, query, key and channel
    mean = (row.G[:, :, None] * row.pattern).sum(-1)  # target, head, query
    parts: list[Tensor] = []
    for h in range(heads):
        plain = (weight.T @ read[h]).unflatten(-1, (length, width)) * row.G[:, h, :, None]
        parts.append(plain - ((weight.T * mean[:, h]) @ read[h]).unflatten(-1, (length, width)))
    covectors = torch.stack(parts, 2).flatten(2).transpose(0, 1)  # key, target, head and channel
    sources = row.turned.flatten(2).transpose(1, 2)  # key, head and channel, source
    total = weight.new_zeros(covectors.shape[1], sources.shape[2])
    step = max(BUDGET // total.numel(), 1)
    for some in torch.arange(length, device=weight.device).split(step):
        reached = covectors[some] @ sources[some] * row.value[some][:, None]
        total += (reached.square() if square else reached).sum(0)
    return total


def _squares(row: _Row, weight: Float[Tensor, "query target"]) -> Float[Tensor, "target source"]:
    """Exact by (q, p): (Σ_h dS_h E_h)² is a sum over pairs of heads, each a product over (q, p)."""
    heads, length, _ = row.query.shape
    values = row.G.permute(1, 2, 0)  # head, key, target
    mean = row.pattern @ values  # head, query, target
    sources = (row.turned * row.value[..., None, None]).permute(2, 0, 3, 1)  # head, key, channel, source
    total = weight.new_zeros(len(row.G), row.value.shape[1])
    step = max(4 * BUDGET // (heads * length * max(total.shape)), 1)
    for some in torch.arange(length, device=weight.device).split(step):
        q = slice(int(some[0]), length)  # queries before the first of these keys do not see them
        pattern = row.pattern[:, q, some].transpose(1, 2)[..., None]  # head, key, query
        left = pattern * (values[:, some, None] - mean[:, None, q]) * weight[q]
        right = row.query[:, None, q] @ sources[:, some]
        left, right = left.flatten(1, 2), right.flatten(1, 2)  # head, pair, unit
        for one in range(heads):
            for other in range(one + 1):
                part = (left[one] * left[other]).T @ (right[one] * right[other])
                total += part if one == other else 2 * part
    return total
