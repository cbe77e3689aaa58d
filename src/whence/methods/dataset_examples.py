"""The prompts and positions behind an edge of dataset attributions.

For one target unit t and one source unit s, A[q, p] = c_t[q] dy_t[q]/da_s[p] a_s[p] c_s[p] of every pair of positions
is computed anew, by vector-Jacobian products through the model cut at its components, and the largest are kept. Their
sum over the whole data is the edge's `attr`. Cost: a forward pass a batch and a backward pass a position at which the
target counts.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.corpus.token_rows import TokenRows
from whence.engine.dataset.backward import AT_ONCE
from whence.engine.dataset.kernels import Counted, Kernels
from whence.engine.dataset.named import sorted_out
from whence.engine.dataset.passing import Passed, passed_through
from whence.engine.dataset.weighing import Weighed, importances
from whence.engine.dataset.wired import Wired
from whence.engine.dataset.wiring import wire
from whence.methods.dataset_plan import TOKENS, DatasetPlan, read_plan
from whence.methods.fingerprint import fingerprint
from whence.model.batch import Batch
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.dataset_keys import site_of
from whence.results.dataset_runs import find_result
from whence.results.dataset_store import open_store
from whence.results.keys import Node

AROUND = 12  # tokens shown on either side


@dataclass(frozen=True)
class EdgeExample:
    """One pair of positions of one row.

    Args:
        row: Of the prepared data.
        target_position: Where the target reads, q.
        source_position: Where the source writes, p.
        value: A[q, p].
        tokens: What the row says, token by token; empty without a tokenizer.
    """

    row: int
    target_position: int
    source_position: int
    value: float
    tokens: tuple[str, ...]

    def __str__(self) -> str:
        """The text around, with the source in ⟨⟩ and the target in []."""
        p, q = self.source_position, self.target_position
        first, last = max(min(p, q) - AROUND, 0), max(p, q) + AROUND
        marked = [
            f"[⟨{text}⟩]" if at == p == q else f"⟨{text}⟩" if at == p else f"[{text}]" if at == q else text
            for at, text in enumerate(self.tokens)
        ]
        return f"{self.value:+.4g}  {''.join(marked[first : last + 1])}"


def top_examples(
    run: str | Path,
    model: Model,
    components: Any,
    source: str | Node,
    target: str | Node,
    *,
    k: int = 10,
    batches: int | None = None,
    progress: Progress = silent,
) -> list[EdgeExample]:
    """Where in the data an edge is strongest.

    Args:
        run: a finished run, or a folder of runs, whose newest finished one counts.
        model: its model.
        components: its components.
        source: key of the source unit, such as "0.glu.down:3" or "embed:17".
        target: key of the target unit, such as "1.attn.q:5" or "output:262".
        k: how many.
        batches: look at the first so many batches only; None: all that the run has.
        progress: called with ("batches", done, total).

    Returns:
        The pairs of positions of largest |A|, the largest first.

    Raises:
        ValueError: a source that does not reach the target, a model or components that are not the run's, or k or
            batches below 1.
        KeyError: a unit that is not there.

    Example:
        >>> for example in whence.top_examples("runs/stories", model, saes, "embed:17", "output:262"):  # doctest: +SKIP
        ...     print(example)
    """
    if k < 1 or (batches is not None and batches < 1):
        raise ValueError(f"k={k}, batches={batches}; both are 1 or more, or batches is None for all that the run has")
    result = find_result(run)
    plan = read_plan(result.parent)
    given = sorted_out(components)
    if fingerprint(model) != plan.describes["model"]["weights"] or given.describe() != plan.describes["components"]:
        raise ValueError(f"{plan.folder} was computed with another model or other components; load those")
    finder = _Finder(plan, model, given, _node(source), _node(target))
    summed = [index for window in open_store(result).header.windows for index in plan.batches_of(window)][:batches]
    best: list[tuple[float, tuple[int, int, int], float]] = []
    for done, index in enumerate(summed, 1):
        for row, q, p, value in finder.batch(index, k):
            entry = (abs(value), (-row, -q, -p), value)
            if len(best) < k:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)
        progress("batches", done, len(summed))
    rows = TokenRows.open(plan.folder / TOKENS)
    ordered = [(-row, -q, -p, value) for _, (row, q, p), value in sorted(best, reverse=True)]
    return [_example(model, rows, *place) for place in ordered]


def _node(key: str | Node) -> Node:
    return Node.parse(key) if isinstance(key, str) else key


def _example(model: Model, rows: TokenRows, row: int, q: int, p: int, value: float) -> EdgeExample:
    ids = rows.row(row).tolist()
    tokens = () if model.tokenizer is None else tuple(model.token_text(one) for one in ids)
    return EdgeExample(row, q, p, value, tokens)


class _Finder:
    """A of one edge, batch by batch."""

    def __init__(self, plan: DatasetPlan, model: Model, given: Any, source: Node, target: Node) -> None:
        settings, self.plan, self.rows, self.model = plan.settings, plan, plan.rows, model
        (self.source, source_id), (self.target, target_id) = site_of(source), site_of(target)
        tokens = torch.tensor([target_id] if self.target == "output" else [], dtype=torch.long)
        options = replace(settings.options, metrics=("attr",))
        self.wired: Wired = wire(model, given, self.rows.seen, tokens, options, self.rows.longest)
        if (self.target, self.source) not in self.wired.routes:
            raise ValueError(f"{source} does not reach {target} directly, so no position is behind that edge")
        self.kernels = Kernels(replace(self.wired, routes={}))
        self.unit = self._place(self.wired.readings[self.target].ids, target_id, target)
        self.line = self._place(self.wired.writings[self.source].ids, source_id, source)

    @staticmethod
    def _place(ids: Int[Tensor, " unit"], id: int, node: Node) -> int:
        found = (ids == id).nonzero()
        if not len(found):
            raise KeyError(f"{node} is not stored: it is dead, or occurs nowhere in the data")
        return int(found[0])

    def batch(self, index: int, k: int) -> Iterator[tuple[int, int, int, float]]:
        """The strongest pairs of one batch: row, q, p, A."""
        ids, lengths, numbers = self.rows.batch(index, self.plan.settings.batch_size)
        batch = Batch(ids.to(self.model.device), lengths.to(self.model.device))
        counted, cut = self._seen(batch, numbers)
        pairs = self._pairs(counted, cut)  # q, example, p
        flat = pairs.flatten()
        top = flat.abs().topk(min(k, len(flat))).indices
        for at in top[flat[top] != 0].tolist():
            q, rest = divmod(at, pairs.shape[1] * pairs.shape[2])
            example, p = divmod(rest, pairs.shape[2])
            yield int(numbers[example]), q, p, float(flat[at])

    def _seen(self, batch: Batch, numbers: Tensor) -> tuple[Counted, Passed]:
        wired, options = self.wired, self.wired.options
        with torch.no_grad():
            plain = passed_through(wired.layout, batch, wired.sites, wired.dtype)
            importance = importances(wired.parameters, wired.sites, plain, numbers)
        cut = passed_through(
            wired.layout,
            batch,
            wired.sites,
            wired.dtype,
            cutting=True,
            frozen=not options.live,
            complete=not options.spd,
        )
        real = batch.mask.flatten()[:, None].to(self.wired.seen.device, self.wired.dtype)
        weighed = Weighed(importance, real, options.weighting, options.least)
        return self.kernels.as_seen(cut, weighed), cut

    def _pairs(self, counted: Counted, cut: Passed) -> Float[Tensor, "query example pos"]:
        shape = cut.batch.ids.shape
        weight = counted.heard[self.target].weights["attr"][:, self.unit].unflatten(0, shape)
        value, leaf = cut.tape.values[self.target][..., self.unit], cut.tape.leaves[self.source]
        found = weight.new_zeros(shape[1], *shape)
        for some in (weight != 0).any(0).nonzero()[:, 0].split(AT_ONCE):
            cotangents = weight.new_zeros(len(some), *shape)
            cotangents[torch.arange(len(some)), :, some] = weight[:, some].T
            (gradient,) = torch.autograd.grad(value, leaf, cotangents, retain_graph=True, is_grads_batched=True)
            found[some] = self._contracted(gradient, counted, shape)
        return found

    def _contracted(self, gradient: Tensor, counted: Counted, shape: torch.Size) -> Float[Tensor, "k example pos"]:
        told, kind = counted.told[self.source], self.wired.writings[self.source].kind
        value = told.value.unflatten(0, shape)
        if kind == "units":
            return gradient[..., self.line] * value[..., self.line]
        if kind == "parts":
            return (gradient[..., self.line, :] * value[..., self.line, :]).sum(-1)
        product = (gradient * value).sum(-1)
        return product if told.bucket is None else product * (told.bucket == self.line).unflatten(0, shape)
