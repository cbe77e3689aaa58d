"""Covectors back through one sublayer at the values it had, its norm and its attention live.

    token by token    an MLP sees one token at a time: the tokens asked for, gathered, one forward and one backward pass
    in turns          anything else: the whole batch forward once, then one backward pass a turn, each example's rows
                      taking turns
    forward           what a step at a sublayer's output is in the stream: the derivative of its tail; and back

Cost as said. Knows nothing of what the covectors are.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.network import CircuitSite, read_of, value_of
from whence.engine.circuits.state import State
from whence.engine.circuits.units import Cotangents, Places, turns
from whence.model.calls import Calls
from whence.model.sublayers import Sublayer

TOKENS_AT_ONCE = 2048


class Forward:
    """The derivative of a function at a point, applied to steps: J t, for as many t as are asked.

    J t is the derivative by c of cᵀ J t, and cᵀ J is one backward pass that is kept: a step costs one backward pass
    through it. (Forward-mode derivatives say the same several times slower on small models.)
    """

    @torch.enable_grad()
    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]], at: Tensor) -> None:
        start = at.detach().requires_grad_()
        out = function(start)
        self._covectors = [torch.zeros_like(one, requires_grad=True) for one in out]
        (self._back,) = torch.autograd.grad(out, start, self._covectors, create_graph=True)

    def __call__(self, step: Tensor) -> tuple[Tensor, ...]:
        """What each of the function's values does for a step."""
        return torch.autograd.grad(self._back, self._covectors, step.to(self._back), retain_graph=True)


def pushed(function: Callable[[Tensor], Tensor], at: Tensor, step: Tensor) -> Tensor:
    """The derivative of a function at a point along one step."""
    return Forward(lambda x: (function(x),), at)(step)[0].to(step)


def in_stream(site: CircuitSite, state: State, at: Places, tangent: Float[Tensor, "n width"]) -> Tensor:
    """What steps at a site are in the stream behind it."""
    sublayer = site.sublayer
    if sublayer is None:
        return tangent
    plain = site.depth == "normed" or sublayer.post_norm is None
    if plain and site.depth != "inside":
        return sublayer.factor * tangent
    return pushed(lambda value: sublayer.tail(value, site.depth), at.of(state.own[site]), tangent)


@torch.enable_grad()
def pull_tail(
    site: CircuitSite, state: State, example: Int[Tensor, " n"], field: Float[Tensor, "n pos d_model"]
) -> Float[Tensor, "n pos width"]:
    """Covectors in the stream behind a site, at the site; the other way round than `in_stream`."""
    sublayer = site.sublayer
    if sublayer is None:
        return field
    value = state.own[site][example].detach().requires_grad_()
    out = sublayer.tail(value, site.depth)
    return torch.autograd.grad(out, value, field.to(out))[0].to(field)


def pull_site(site: CircuitSite, state: State, at: Places, cotangents: Cotangents) -> Float[Tensor, "n d_model"]:
    """Covectors at an MLP's site and at what its features read, at the stream the MLP reads; token by token."""
    sublayer, calls = site.sublayer, state.calls
    assert sublayer is not None
    stream = at.of(state.streams[site.point])
    ends = {"own": cotangents.own, "read": cotangents.read}
    asked = {end: one for end, one in ends.items() if one is not None and bool(one.any())}

    def outputs(rows: Tensor) -> list[Tensor]:
        given = sublayer.given(rows)
        found: list[Tensor] = []
        if "own" in asked:
            found.append(value_of(sublayer, sublayer.call(calls, given), site.depth))
        if "read" in asked:
            found.append(read_of(site, sublayer, rows, given))
        return found

    return _token_by_token(outputs, stream, list(asked.values()))


def pull_tokens(sublayer: Sublayer, calls: Calls, stream: Float[Tensor, "n d_model"], covector: Tensor) -> Tensor:
    """Covectors in the stream behind an MLP, in the stream before it, without what passes beside it."""
    return _token_by_token(lambda rows: [added(sublayer, calls, rows)], stream, [covector])


def added(sublayer: Sublayer, calls: Calls, stream: Tensor) -> Tensor:
    """What a sublayer adds for a stream."""
    return sublayer.tail(sublayer.call(calls, sublayer.given(stream)).out, "out")


@torch.enable_grad()
def _token_by_token(outputs: Callable[[Tensor], list[Tensor]], stream: Tensor, covectors: list[Tensor]) -> Tensor:
    found: list[Tensor] = []
    if not covectors:
        return torch.zeros_like(stream)
    for start in range(0, len(stream), TOKENS_AT_ONCE):
        here = slice(start, start + TOKENS_AT_ONCE)
        rows = stream[here, None].detach().requires_grad_()
        out = outputs(rows)
        asked = [covector[here, None].to(one) for covector, one in zip(covectors, out, strict=True)]
        found.append(torch.autograd.grad(out, rows, asked)[0][:, 0])
    return torch.cat(found) if found else torch.zeros_like(stream)


@torch.enable_grad()
def pull_in_turns(
    function: Callable[[Tensor], Tensor],
    stream: Float[Tensor, "example pos d_model"],
    example: Int[Tensor, " n"],
    covector: Callable[[Tensor], Tensor],
) -> Float[Tensor, "n pos d_model"]:
    """Fields of covectors back through a function of the stream of a whole batch.

    Args:
        function: of the stream.
        stream: where it is taken.
        example: whose each row is.
        covector: the covectors [k, pos, width] of some rows, given their numbers.
    """
    start = stream.detach().requires_grad_()
    out = function(start)
    turn = turns(example, len(stream))
    found = stream.new_zeros(len(example), *stream.shape[1:])
    for now in range(int(turn.max()) + 1 if len(turn) else 0):
        rows = (turn == now).nonzero()[:, 0]
        field = torch.zeros_like(out)
        field[example[rows]] = covector(rows).to(field)
        (back,) = torch.autograd.grad(out, start, field, retain_graph=True)
        found[rows] = back[example[rows]]
    return found
