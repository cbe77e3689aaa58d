"""Edges from keys to what an attention's output map reads, in closed form, through the softmax.

    A[q, p, t, s] = scale Σ_h dS_h[t, q, p] (q_h[q] · R_p U_k,s) (a c)_s[p]
    dS_h[t, q, p] = A_h[q, p] (G_h[t, p] − Ḡ_h[t, q])       G_h[t, p] = V_o,h,t · v[p], Ḡ its mean under A_h[q, ·]

Few units active: query by query, the targets that count there meet the sources before them. Many: linear metrics sum
over q before they meet a source; squares are products over (q, p) for each pair of heads. A local derivative: it is
part of no sum. Cost a row of L tokens: few, H operations for each (active target at q, active source at p ≤ q); many,
H L² e T + L d T S and, for the square, H(H + 1)/2 · L²/2 · T S.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    """One row of a batch.

    Args:
        G: see above.
        R: R of keys at each position, times the scale.
        value: a c of units, and 1 at real tokens for a vector.
        written: what each source adds to every head's key, before R; of a vector, at each position.
    """

    pattern: Float[Tensor, "head query key"]
    query: Float[Tensor, "head query d_head"]
    G: Float[Tensor, "target head key"]
    R: Float[Tensor, "key d_head d_head"]
    weights: Mapping[str, Float[Tensor, "query target"]]
    value: Sequence[Float[Tensor, "key _"]]
    written: Sequence[Float[Tensor, "... head d_head"]]

    @property
    def sources(self) -> int:
        """How many there are."""
        return sum(value.shape[1] for value in self.value)

    @property
    def active(self) -> Tensor:
        """Targets that count, by query."""
        return torch.stack([weight != 0 for weight in self.weights.values()]).any(0)

    @property
    def many(self) -> bool:
        """Whether dense products are faster."""
        counted = sum(int((value != 0).sum()) for value in self.value)
        return float(self.active.float().mean()) * counted / (len(self.R) * self.sources) > MANY

    def some(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n head d_head"]]:
        """Position, unit, and what is added to the keys there, of what counts; ascending in position."""
        positions, units, added, first = list[Tensor](), list[Tensor](), list[Tensor](), 0
        for value, written in zip(self.value, self.written, strict=True):
            position, unit = value.nonzero(as_tuple=True)
            own = written[position, 0] if written.ndim == 4 else written[unit]
            added.append(own * value[position, unit][:, None, None])
            positions.append(position)
            units.append(unit + first)
            first += value.shape[1]
        position, unit = torch.cat(positions), torch.cat(units)
        order = position.argsort(stable=True)
        turned = torch.einsum("nij,nhj->nhi", self.R[position], torch.cat(added))
        return position[order], unit[order], turned[order]

    def every(self, keys: Tensor) -> Float[Tensor, "head n d_head source"]:
        """What every source adds to some keys."""
        parts = [
            (
                torch.einsum("pij,pnhj->hpin", self.R[keys], written[keys])
                if written.ndim == 4
                else torch.einsum("pij,nhj->hpin", self.R[keys], written)
            )
            * value[keys][:, None]
            for value, written in zip(self.value, self.written, strict=True)
        ]
        return torch.cat(parts, -1)


@dataclass(frozen=True, eq=False)
class KeyKernel:
    """Edges from one attention's keys to its output components.

    Args:
        reading: the components of the output map.
        writings: source sites of the key map.
        how: how it compares them.
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
        rows, length = one.pattern.shape[0], one.pattern.shape[-1]
        weights = {metric: heard.weights[metric].unflatten(0, (rows, length)) for metric in metrics}
        values = {writing.site: told[writing.site].value.unflatten(0, (rows, length)) for writing in self.writings}
        for number in range(rows):
            own = {metric: weight[number] for metric, weight in weights.items()}
            row = self._row(one, number, own, {site: value[number] for site, value in values.items()})
            blocks = _many(row, self.summed_squares) if row.many else _few(row, self.summed_squares)
            for metric, block in blocks.items():
                parts = block.split([len(writing.ids) for writing in self.writings], 1)
                for writing, part in zip(self.writings, parts, strict=True):
                    window.add((self.reading.site, writing.site), metric, part)

    def _row(self, one: Attended, number: int, weights: Mapping[str, Tensor], told: Mapping[str, Tensor]) -> _Row:
        heads, width, length = one.pattern.shape[1], one.query.shape[-1], one.pattern.shape[-1]
        values = expand_groups(one.value[number : number + 1], heads)[0]
        value: list[Tensor] = []
        written: list[Tensor] = []
        for writing in self.writings:
            own = told[writing.site]
            if writing.U is None:
                value.append((own != 0).any(-1, keepdim=True).to(own))
                written.append(by_head(own, heads, width)[:, None])
            else:
                value.append(own)
                written.append(by_head(writing.U, heads, width))
        G = torch.einsum("thi,hpi->thp", by_head_of(self.reading, heads), values)
        R = self.how.scale * self.how.key[:length].to(one.key)
        return _Row(one.pattern[number], one.query[number], G, R, weights, value, written)


# ---------------------------------------------------------------- few
def _few(row: _Row, summed_squares: bool) -> dict[str, Float[Tensor, "target source"]]:
    """Query by query, what counts there with what counts before it."""
    position, unit, turned = row.some()
    active = row.active
    found = {metric: turned.new_zeros(len(row.G), row.sources) for metric in row.weights}
    for targets in torch.arange(len(row.G), device=row.G.device).split(max(4 * BUDGET // max(len(unit), 1), 1)):
        sums = {metric: turned.new_zeros(len(targets), len(unit)) for metric in row.weights}
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
    split = active.nonzero()[:, 1].split(active.sum(1).tolist())
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
    length, total = len(row.R), weight.new_zeros(len(row.G), row.sources)
    for targets in torch.arange(len(row.G), device=weight.device).split(_at_once(length * row.query[:, 0].numel())):
        covectors = _covectors(row, weight[:, targets], row.G[targets])
        for keys in torch.arange(length, device=weight.device).split(_at_once(len(targets) * row.sources)):
            sources = row.every(keys).permute(1, 0, 2, 3).flatten(1, 2)  # key, head and channel, source
            reached = covectors[keys] @ sources
            total[targets] += (reached.square() if square else reached).sum(0)
    return total


def _covectors(row: _Row, weight: Tensor, G: Tensor) -> Float[Tensor, "key target channel"]:
    parts: list[Tensor] = []
    for h, (pattern, query) in enumerate(zip(row.pattern, row.query, strict=True)):
        read = (pattern[..., None] * query[:, None]).flatten(1)  # query, key and channel
        mean = G[:, h] @ pattern.T  # target, query
        shape = len(pattern), query.shape[-1]
        plain = (weight.T @ read).unflatten(-1, shape) * G[:, h, :, None]
        parts.append(plain - ((weight.T * mean) @ read).unflatten(-1, shape))
    return torch.cat(parts, -1).transpose(0, 1)


def _squares(row: _Row, weight: Float[Tensor, "query target"]) -> Float[Tensor, "target source"]:
    """Exact by (q, p): (Σ_h dS_h E_h)² is a sum over pairs of heads, each a product over (q, p)."""
    heads, length, _ = row.query.shape
    values = row.G.permute(1, 2, 0)  # head, key, target
    mean = row.pattern @ values  # head, query, target
    total = weight.new_zeros(len(row.G), row.sources)
    for keys in torch.arange(length, device=weight.device).split(_at_once(heads * length * max(total.shape))):
        q = slice(int(keys[0]), length)  # queries before the first of these keys do not see them
        pattern = row.pattern[:, q, keys].transpose(1, 2)[..., None]  # head, key, query
        left = pattern * (values[:, keys, None] - mean[:, None, q]) * weight[q]
        right = row.query[:, None, q] @ row.every(keys)
        left, right = left.flatten(1, 2), right.flatten(1, 2)  # head, pair, unit
        for one in range(heads):
            for other in range(one + 1):
                part = (left[one] * left[other]).T @ (right[one] * right[other])
                total += part if one == other else 2 * part
    return total


def _at_once(numbers: int) -> int:
    """How many of something fit that take so many numbers each."""
    return max(4 * BUDGET // max(numbers, 1), 1)
