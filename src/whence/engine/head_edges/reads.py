"""What each head's queries, keys and values read: covectors at them, back to what the attention is given.

With A the pattern, s = slope q·k the scores and G [token, head] a covector at the heads' outputs z,

    dA = G · v[k],  ds = A (dA - sum_k A dA) slope,  dq = ds k,  dk = dsᵀ q,  dv = Aᵀ G

for every query head by itself, also where heads share keys and values: the share of one head in them. From there back
the model's own rotations and norms of heads are differentiated up to what its maps put out; which channels of which map
make which end of which head is found out once, by looking where a covector at that end alone comes out. Ends that share
no channel go back together. Everything stays in head space: 3 d_head numbers a head and token.

Cost: an attention without its last map, and a backward pass of its rotations. Knows nothing of what stands before.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.circuits.meeting import Seen, compared, seen
from whence.engine.circuits.network import Network
from whence.engine.circuits.state import State
from whence.errors import UnsupportedModelError
from whence.model.attention import expand_groups
from whence.model.calls import Calls
from whence.model.hooks import After, first_tensor, hooked
from whence.model.linear import rows_of
from whence.model.sublayers import Sublayer
from whence.results.names import ENDS

End = tuple[int, int]  # which of query, key and value; head
QueryKeyValue = tuple[Tensor, Tensor, Tensor]
Made = tuple[dict[nn.Module, Tensor], QueryKeyValue]  # what maps put out, and what is made of it


@dataclass(frozen=True, eq=False)
class Piece:
    """Some channels of what one map puts out."""

    module: nn.Module
    width: int
    channels: Tensor

    def back(self, covector: Float[Tensor, "*rows channel"], d_model: int) -> Float[Tensor, "*rows d_model"]:
        """A covector there, at what the map reads."""
        return covector @ rows_of(self.module, self.channels, d_model, self.width).to(covector)


@dataclass(frozen=True, eq=False)
class HeadReads:
    """One attention: the channels that make each end of each head, and which ends go back together."""

    sublayer: Sublayer
    heads: int
    scaling: float  # what it multiplies q · k with
    pieces: dict[End, tuple[Piece, ...]]
    turns: tuple[tuple[End, ...], ...]

    @torch.enable_grad()
    def back(self, network: Network, calls: Calls, given: Tensor, ends: QueryKeyValue) -> dict[End, list[Tensor]]:
        """Covectors at the channels of every end: [example, pos, channel] for each of its pieces.

        Args:
            network: the model.
            calls: the batch's.
            given: what the attention is given.
            ends: covectors [example, head, pos, d_head] at queries, keys and values, each head's own.
        """
        leaves, made = _cut(network, self.sublayer, calls, given)
        found: dict[End, list[Tensor]] = {}
        for turn in self.turns:
            asked = [_placed(one, own, turn, which) for which, (one, own) in enumerate(zip(made, ends, strict=True))]
            gradients = _gradients(made, leaves, asked)
            for end in turn:
                found[end] = [gradients[piece.module][..., piece.channels].to(ends[0]) for piece in self.pieces[end]]
        return found


def _placed(made: Tensor, own: Tensor, turn: tuple[End, ...], which: int) -> Tensor:
    """Covectors of a turn's heads where they are in the queries, or in the keys or values that heads share."""
    field, share = torch.zeros_like(made), own.shape[1] // made.shape[1]
    for end, head in turn:
        if end == which:
            field[:, head // share] = own[:, head].to(made)
    return field


def _gradients(made: QueryKeyValue, leaves: dict[nn.Module, Tensor], asked: list[Tensor]) -> dict[nn.Module, Tensor]:
    """By what each map put out, [example, pos, channel]."""
    made_of_them = [pair for pair in zip(made, asked, strict=True) if pair[0].requires_grad]
    if not made_of_them:
        return {}
    ends, covectors = zip(*made_of_them, strict=True)
    found = torch.autograd.grad(ends, [*leaves.values()], covectors, retain_graph=True, materialize_grads=True)
    return {
        module: gradient.reshape(len(made[0]), -1, gradient.shape[-1])
        for module, gradient in zip(leaves, found, strict=True)
    }


def _cut(network: Network, sublayer: Sublayer, calls: Calls, given: Tensor) -> Made:
    """What the maps put out, as leaves, and the queries, keys and values made of them."""
    given, leaves = given.detach().clone(), {}
    inner = [m for m in sublayer.entrance.modules() if all(part is not sublayer.write for part in m.modules())]

    def at(module: nn.Module) -> After:
        def replace(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
            read = first_tensor(args, kwargs) if args or kwargs else None
            if not isinstance(output, Tensor) or read is None:
                return None
            if (read.data_ptr(), read.numel()) != (given.data_ptr(), given.numel()):
                return None
            leaves[module] = output.detach().requires_grad_()
            return leaves[module]

        return replace

    maps = [module for module in inner if any(parameter.ndim > 1 for parameter in module.parameters())]
    with hooked([(module, at(module)) for module in maps]):
        made = compared(network, sublayer, calls, given)
    return leaves, made


@torch.enable_grad()
def head_reads(network: Network, sublayer: Sublayer, state: State, point: int) -> HeadReads:
    """The channels that make each end of each head, and what queries and keys are compared by.

    Args:
        network: the model.
        sublayer: the attention.
        state: of a few tokens, two at least: one alone compares no keys, and yet may be compared with a sink.
        point: of the stream that the attention reads.

    Raises:
        UnsupportedModelError: an end that no map makes, or scores that are no multiple of q · k.
    """
    scaling = seen(network, sublayer, state, point).scaling
    leaves, made = _cut(network, sublayer, state.calls, sublayer.given(state.streams[point]))
    heads = made[0].shape[1]
    pieces: dict[End, tuple[Piece, ...]] = {}
    owned: dict[End, Tensor] = {}
    for end in ((which, head) for which in range(3) for head in range(heads)):
        asked = _random(made, end, heads)
        gradients = _gradients(made, leaves, asked)
        used = {module: (gradient != 0).flatten(0, 1).any(0) for module, gradient in gradients.items()}
        pieces[end] = tuple(Piece(module, len(u), u.nonzero()[:, 0]) for module, u in used.items() if bool(u.any()))
        if not pieces[end]:
            raise UnsupportedModelError(
                f"{sublayer.key} ({type(sublayer.out).__name__}): no linear map of it makes {ENDS[end[0]]} of head "
                f"{end[1]}, so its edges cannot be told apart; feature_circuit with 'attn.head' has them whole"
            )
        owned[end] = torch.cat([*used.values()])
    return HeadReads(sublayer, heads, scaling, pieces, _in_turns(owned))


def _random(made: QueryKeyValue, end: End, heads: int) -> list[Tensor]:
    """A covector at one end of one head."""
    which, head = end
    asked = [torch.zeros_like(one) for one in made]
    place = asked[which][:, head // (heads // made[which].shape[1])]
    place.copy_(torch.randn(place.shape, generator=torch.Generator().manual_seed(0)))
    return asked


def _in_turns(owned: dict[End, Tensor]) -> tuple[tuple[End, ...], ...]:
    """Groups of ends that share no channel."""
    turns: list[tuple[list[End], Tensor]] = []
    for end, mask in owned.items():
        place = next((number for number, (_, taken) in enumerate(turns) if not bool((taken & mask).any())), None)
        if place is None:
            turns.append(([end], mask))
        else:
            turns[place] = ([*turns[place][0], end], turns[place][1] | mask)
    return tuple(tuple(ends) for ends, _ in turns)


@torch.no_grad()
def at_ends(what: Seen, covector: Float[Tensor, "example pos width"]) -> QueryKeyValue:
    """Covectors at every head's queries, keys and values, for one at the heads' outputs."""
    heads = what.query.shape[1]
    z = covector.unflatten(-1, (heads, -1)).transpose(1, 2)
    key, value = (expand_groups(one, heads).to(z) for one in (what.key, what.value))
    pattern, query = what.pattern.to(z), what.query.to(z)
    weight = z @ value.mT
    score = pattern * (weight - (pattern * weight).sum(-1, keepdim=True)) * what.slope.to(z)
    return score @ key, score.mT @ query, pattern.mT @ z
