"""Edges into an attention's output, met in the middle: covectors come back to q, k, v, tangents go forward to them.

With A the pattern, s = slope q·k the scores and dz [head] a covector at z of query p,

    dA = dz · v[k],  ds = A (dA - sum_k A dA),  dq = sum_k ds slope k,  dk = ds slope q,  dv = A dz

and the weight of a source at position s is dq · q'[s = p] + dk[s] · k' + dv[s] · v', where q', k', v' is what its step
in the stream makes of them: norms, projections, rotations and norms of heads as the model has them, by a derivative
of the model's own modules. Cost: rows of targets plus rows of sources, not their product. Only where patterns can be
read; softcaps and sinks included.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.circuits.joins import Rows, Table, WideRows, join, join_wide
from whence.engine.circuits.network import CircuitSite, Network
from whence.engine.circuits.pulling import Forward
from whence.engine.circuits.state import State
from whence.engine.circuits.units import Places
from whence.engine.score_scaling import scaling_of
from whence.model.attention import Attention, Scored
from whence.model.calls import Calls
from whence.model.sublayers import Passed, Sublayer

ROWS_AT_ONCE = 512


class _Enough(Exception):  # not an error: the rest of the module is not needed
    """Queries, keys and values are known."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What an attention did at a state."""

    query: Float[Tensor, "example head pos d_head"]
    key: Float[Tensor, "example group pos d_head"]
    value: Float[Tensor, "example group pos d_value"]
    pattern: Float[Tensor, "example head pos pos"]
    slope: Float[Tensor, "example head pos pos"]
    scaling: float  # the slope without a softcap
    passed: Passed


@dataclass(frozen=True, eq=False)
class EndRows:
    """Covectors at queries (own position), and at keys and values side by side."""

    query: Rows
    key_value: WideRows


@torch.no_grad()
def seen(network: Network, sublayer: Sublayer, state: State, point: int, scaling: float | None = None) -> Seen:
    """Queries, keys, values, pattern, and the slope of the scores by q · k.

    Args:
        network: the model.
        sublayer: the attention.
        state: its batch.
        point: of the stream it reads.
        scaling: what the model multiplies q · k with; None reads it off this batch, which takes two tokens.

    Raises:
        UnsupportedModelError: scores that are no multiple of q · k.
    """
    scored: list[Scored] = []
    told: list[Attention] = []
    tape = network.tape
    tape.on_scores, tape.on_attention = scored.append, lambda _, attention: told.append(attention)
    try:
        passed = sublayer.call(state.calls, sublayer.given(state.streams[point]))
    finally:
        tape.on_scores = tape.on_attention = None
    one, length = scored[0], scored[0].key.shape[2]
    scaling = _scaling(network, sublayer, state, one) if scaling is None else scaling
    slope = torch.full_like(told[0].pattern, scaling)
    if one.softcap is not None:
        slope = slope * (1 - (one.score[..., :length] / one.softcap).square()).clamp_min(0)
    return Seen(one.query, one.key, told[0].value, told[0].pattern, slope, scaling, passed)


def _scaling(network: Network, sublayer: Sublayer, state: State, one: Scored) -> float:
    longest = int(state.calls.batch.lengths.argmax())  # a prompt of one token, padded, compares no two keys
    only = replace(one, **{name: getattr(one, name)[longest, None] for name in ("query", "key", "score", "pattern")})
    writer = next(writer for writer in network.layout.of(sublayer.layer) if writer.name == "attn")
    return scaling_of(writer, only)


def ends(site: CircuitSite, what: Seen, at: Places, node: Tensor, covector: Float[Tensor, "n width"]) -> EndRows:
    """Covectors at an attention's site, at its queries, keys and values."""
    pulled = [
        _pulled(site, what, Places(*(part[here] for part in (at.example, at.position, at.unit))), covector[here])
        for here in torch.arange(len(at), device=covector.device).split(ROWS_AT_ONCE)
    ]
    query, key_value = (torch.cat(parts) for parts in zip(*pulled, strict=True))
    return EndRows(Rows(at.example, at.position, node, query), WideRows(at.example, node, key_value))


def _pulled(site: CircuitSite, what: Seen, at: Places, covector: Tensor) -> tuple[Tensor, Tensor]:
    groups = what.key.shape[1]
    z = _at_heads(site, what, at, covector).unflatten(-1, (groups, -1, what.value.shape[-1]))
    pattern = what.pattern[at.example, :, at.position].unflatten(1, (groups, -1)).to(z)
    slope = what.slope[at.example, :, at.position].unflatten(1, (groups, -1)).to(z)
    query = what.query[at.example, :, at.position].unflatten(1, (groups, -1)).to(z)
    key, value = what.key.to(z)[at.example], what.value.to(z)[at.example]
    weight = torch.einsum("ngrd,ngsd->ngrs", z, value)
    score = pattern * (weight - (pattern * weight).sum(-1, keepdim=True)) * slope
    to_query = torch.einsum("ngrs,ngsd->ngrd", score, key)
    to_key = torch.einsum("ngrs,ngrd->nsgd", score, query)
    to_value = torch.einsum("ngrs,ngrd->nsgd", pattern, z)
    return to_query.flatten(1), torch.cat([to_key.flatten(2), to_value.flatten(2)], -1)


@torch.enable_grad()
def _at_heads(site: CircuitSite, what: Seen, at: Places, covector: Tensor) -> Tensor:
    """The covector at the heads' outputs, side by side."""
    sublayer = site.sublayer
    if site.depth == "inside":
        return covector
    assert sublayer is not None
    assert sublayer.write is not None
    assert what.passed.inside is not None
    inside = at.of(what.passed.inside).detach().requires_grad_()
    out = sublayer.written * sublayer.write(inside)
    if site.depth == "normed" and sublayer.post_norm is not None:
        out = sublayer.post_norm(out)
    return torch.autograd.grad(out, inside, covector.to(out))[0].to(covector)


@torch.no_grad()
def pushed_rows(network: Network, sublayer: Sublayer, state: State, point: int, up: Rows) -> tuple[Rows, Rows]:
    """What steps in the stream make of queries, and of keys and values side by side; token by token."""
    parts: list[tuple[Tensor, Tensor]] = []
    for here in torch.arange(len(up), device=up.node.device).split(ROWS_AT_ONCE):
        example, position = up.example[here], up.position[here]
        calls, stream = state.calls.tokens(example, position), state.streams[point][example, position][:, None]
        forward = _forward(network, sublayer, calls, stream)
        q, k, v = (step.flatten(1).to(up.vector) for step in forward(up.vector[here, None]))
        parts.append((q, torch.cat([k, v], -1)))
    query, key_value = (torch.cat(column) for column in zip(*parts, strict=True))
    where = up.example, up.position, up.node
    return Rows(*where, query), Rows(*where, key_value)


def _forward(network: Network, sublayer: Sublayer, calls: Calls, stream: Tensor) -> Forward:
    return Forward(lambda x: compared(network, sublayer, calls, sublayer.given(x)), stream)


def compared(network: Network, sublayer: Sublayer, calls: Calls, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values that an attention makes of what it is given; the rest of it is not run."""
    found: list[Tensor] = []

    def keep(*vectors: Tensor) -> None:
        found.extend(vectors)
        raise _Enough

    network.tape.on_given = keep
    try:
        sublayer.call(calls, given)
    except _Enough:
        pass
    finally:
        network.tape.on_given = None
    query, key, value = found
    return query, key, value


def meet(network: Network, sublayer: Sublayer, state: State, point: int, down: EndRows, up: Rows, table: Table) -> None:
    """Add the weights of all pairs of targets at an attention and sources in the stream before it."""
    if not len(down.query) or not len(up):
        return
    query, key_value = pushed_rows(network, sublayer, state, point, up)
    join(down.query, query, state.streams[point].shape[1], table)
    join_wide(down.key_value, key_value, table)
