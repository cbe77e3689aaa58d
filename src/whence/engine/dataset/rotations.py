"""What an attention does to its queries and keys before it compares them: found by measuring, then checked.

    q[p, h] = R_p (W_q x)[p, h]        A[h, q, p] = softmax_p(scale q[q, h] · k[p, g(h)])

R [pos, e, e] (rotations, scalings, or nothing) is read off one forward pass in which every query and key map puts out
unit vectors. Where queries or keys are no such linear map (a norm), or the pattern is not that softmax (a cap, a sink,
a slope), there is no closed form. Cost: one forward pass of e rows, once a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.dataset.passing import Attended
from whence.model.attention import AttentionTape, expand_groups, tapped
from whence.model.batch import Batch
from whence.model.hooks import After, hooked
from whence.model.layout import Layout
from whence.model.recorder import run

UNITS_AT_ONCE = 8  # rows of the measuring pass, each as long as the data's
# Of the largest number, by what the model computes in; what is no such map misses by far more.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True, eq=False)
class Compared:
    """How one attention compares queries and keys."""

    query: Float[Tensor, "pos d_head d_head"]
    key: Float[Tensor, "pos d_head d_head"]
    scale: float


@torch.no_grad()
def measured(
    layout: Layout, maps: Mapping[nn.Module, tuple[nn.Module, nn.Module]], length: int, dtype: torch.dtype
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """R of queries and of keys of each attention.

    Args:
        layout: the model.
        maps: attention -> its query map and its key map.
        length: positions.
        dtype: what is computed in.
    """
    device = next(layout.hf.parameters()).device
    widths = {module: query.shape[-1] for module, (query, _) in _given(layout, 1, length, device, []).items()}
    parts: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {module: [] for module in maps if module in widths}
    for units in torch.arange(max(widths.values(), default=0), device=device).split(UNITS_AT_ONCE):
        hooks = [(one, _units(units, widths[module])) for module in parts for one in maps[module]]
        given = _given(layout, len(units), length, device, hooks)
        for module, found in parts.items():
            real = units < widths[module]
            query, key = (one[real, 0].to(dtype) for one in given[module])
            found.append((query, key))
    return {module: (_stacked(found, 0), _stacked(found, 1)) for module, found in parts.items()}


def _stacked(found: Sequence[tuple[Tensor, Tensor]], side: int) -> Float[Tensor, "pos d_head d_head"]:
    """R, rows being what comes out."""
    return torch.cat([pair[side] for pair in found]).permute(1, 2, 0)


def _given(
    layout: Layout, rows: int, length: int, device: torch.device, hooks: Sequence[tuple[nn.Module, After]]
) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """The queries and keys that each attention is given in a pass over some rows of one token."""
    how, found, last = layout.architecture.patterns, dict[nn.Module, tuple[Tensor, Tensor]](), list[Any]()
    if how is None:
        return {}
    ear = AttentionTape(
        "record",
        on_attention=lambda module, _: found.update({module: last.pop()}),
        on_given=lambda query, key, _: last.append((query, key)),
    )
    ids = torch.zeros(rows, length, dtype=torch.long, device=device)
    batch = Batch(ids, torch.full((rows,), length, device=device))
    with layout.lock, hooked(hooks), tapped(layout.hf, tuple(w.module for w in layout.attention), how, ear):
        run(layout, batch)
    return found


def _units(units: Tensor, width: int) -> After:
    """Each row puts out one unit vector, in every head and at every position."""

    def replace(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        unit = nn.functional.one_hot(units.clamp_max(width - 1), width).to(output)
        return unit[:, None].expand(-1, output.shape[1], -1).repeat(1, 1, output.shape[-1] // width)

    return replace


def compared(
    one: Attended, rotation: tuple[Tensor, Tensor], query: Tensor, key: Tensor, real: Tensor, tolerance: float
) -> Compared | None:
    """How an attention compares, if a batch bears it out; None if not.

    Args:
        one: what it was given in the batch.
        rotation: R of queries and of keys.
        query: what its query map put out, [example, pos, channel].
        key: what its key map put out.
        real: [example, pos], False at padding.
        tolerance: how far off it may be.
    """
    for R, own, seen in ((rotation[0], query, one.query), (rotation[1], key, one.key)):
        e = seen.shape[-1]
        heads = own.unflatten(-1, (-1, e)).transpose(1, 2)
        if heads.shape != seen.shape:
            return None
        again = torch.einsum("pij,bhpj->bhpi", R[: heads.shape[2]].to(own), heads)
        if float((again - seen).abs().max()) > tolerance * float(seen.abs().max()):
            return None
    scores = one.query @ expand_groups(one.key, one.query.shape[1]).transpose(-1, -2)
    scale = _scale(scores, one.pattern, real)
    if scale is None:
        return None
    again = (scores * scale).masked_fill(one.pattern == 0, -torch.inf).softmax(-1)
    rows = real[:, None, :, None].expand_as(again)
    if float((again - one.pattern)[rows].abs().max()) > tolerance:
        return None
    return Compared(*rotation, scale)


def _scale(scores: Tensor, pattern: Tensor, real: Tensor) -> float | None:
    """The slope of log A in q · k within a row, by least squares."""
    use = (pattern > 1e-6) & real[:, None, :, None]
    logs = torch.where(use, pattern.clamp_min(1e-30).log(), 0.0).double()
    count = use.sum(-1, keepdim=True).clamp_min(1)
    x = torch.where(use, scores, 0.0).double()
    x, y = (torch.where(use, one - one.sum(-1, keepdim=True) / count, 0.0) for one in (x, logs))
    spread = float(x.square().sum())
    return None if spread < 1e-12 else float((x * y).sum()) / spread
