"""A family that is not listed: its entry, inferred from what one forward pass computed.

  blocks      the list of modules that hand one stream from each to the next
  writers     the innermost modules whose outputs, times constants, add up to what a block adds (terms.py)
  norms       what each writer's sublayer reads, and post-norms between a writer and the stream (sublayers.py)
  the rest    a learned position embedding, the final norm, a constant scale of the logits

Names decide nothing but what kind a writer is called. The entry claims heads, neurons, experts and channels, never
attention patterns. It is accepted only if the self-check passes.

Cost: two forward passes on a few tokens. Refused: anything that does not fit, and weights in half precision, in whose
rounding the sum drowns.
"""

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.architectures import Architecture, Number, Sublayer
from whence.model.layout import find
from whence.model.structure.calls import Call, Puzzle, inside, observe, same
from whence.model.structure.sublayers import Found, read_block

SNAP = 1e-4  # a constant this near to 1 is 1; constants of different layers this near to each other agree


def infer(hf: Any) -> Architecture:
    """An entry for a model of an unlisted family.

    Raises:
        UnsupportedModelError: its structure is not understood; the module and the value seen are named.
    """
    try:
        return _infer(hf)
    except Puzzle as puzzle:
        raise UnsupportedModelError(
            f"{type(hf).__name__}: family {hf.config.model_type!r} is not listed, and its structure could not be "
            f"inferred: {puzzle}. Teach whence the family with an entry of its own: docs/adding-a-model.md."
        ) from None


def _infer(hf: Any) -> Architecture:
    if hf.dtype not in (torch.float32, torch.float64):
        raise Puzzle(f"its weights are {hf.dtype}, too coarse to tell what adds up; load it with dtype='float32'")
    head, embedding = hf.get_output_embeddings(), hf.get_input_embeddings()
    if head is None or embedding is None:
        raise Puzzle("it has no token embedding and output embedding; load it as a causal language model")
    ids = (torch.arange(10, device=hf.device) * 7919 + 5)[None] % embedding.weight.shape[0]
    try:
        calls, logits = observe(hf, ids)
    except (TypeError, ValueError, AttributeError) as error:
        raise Puzzle(f"a forward pass on token ids alone failed with {type(error).__name__}: {error}") from error
    _refuse_unless_causal(hf, ids, logits)
    path, blocks = _blocks(hf, calls)
    return Architecture(
        sublayers=_sublayers(hf, calls, path, blocks),
        blocks=path,
        final_norm=_final_norm(calls, blocks[-1], head),
        position=_position(calls, blocks[0], embedding),
        logit_scale=_logit_scale(calls, head, logits),
    )


def _refuse_unless_causal(hf: Any, ids: Tensor, logits: Tensor) -> None:
    with torch.no_grad():
        shorter = hf(input_ids=ids[:, :-3], use_cache=False).logits
    if not same(shorter[0], logits[0, :-3], 1e-3):
        raise Puzzle("leaving out the last tokens changes earlier logits, so it is no causal language model")


def _call(calls: list[Call], module: nn.Module, what: str) -> Call:
    """The one call of a module that must be called once, with a row per token."""
    found = [call for call in calls if call.module is module]
    if len(found) != 1 or found[0].output is None:
        raise Puzzle(
            f"the {what} ({type(module).__name__}) was called {len(found)} times, or not with one row per token"
        )
    return found[0]


def _blocks(hf: Any, calls: list[Call]) -> tuple[str, list[Call]]:
    """The outermost list of modules that pass one stream from each to the next."""
    by_module = {call.module: call for call in calls}
    lists = [(path, list(module)) for path, module in hf.named_modules() if isinstance(module, nn.ModuleList)]
    for path, members in lists:
        chain = [by_module[member] for member in members if member in by_module]
        if len(chain) == len(members) > 0 and _hands_on(chain):
            return path, chain
    raise Puzzle(
        f"none of its module lists ({', '.join(path for path, _ in lists) or 'it has none'}) hands one stream from "
        "each member to the next"
    )


def _hands_on(chain: list[Call]) -> bool:
    """Whether every call returns something of the shape it took, and the next one takes just that."""
    keeps = all(c.input is not None and c.output is not None and c.input.shape == c.output.shape for c in chain)
    return keeps and all(same(before.output, after.input) for before, after in pairwise(chain))


def _final_norm(calls: list[Call], last: Call, head: nn.Module) -> str:
    read = _call(calls, head, "output embedding").input
    for call in calls:
        if same(call.output, read) and same(call.input, last.output) and call.module is not last.module:
            return call.path
    raise Puzzle("no module takes the last block's output and returns what the output embedding reads")


def _position(calls: list[Call], first: Call, embedding: nn.Module) -> str | None:
    """A module whose output is added to the token's embedding (which may have been scaled) to make the first stream."""
    token = _call(calls, embedding, "token embedding").output
    start = first.input
    assert start is not None
    if token is None or token.shape != start.shape:
        return None
    for call in calls[: calls.index(first)]:
        if call.module is embedding or call.path.startswith(first.path + "."):
            continue
        rest = None if call.output is None or call.output.shape != start.shape else start - call.output
        if rest is not None and float(rest.norm()) > 1e-6 * float(start.norm()) and _ratio(rest, token) is not None:
            return call.path
    return None


def _logit_scale(calls: list[Call], head: nn.Module, logits: Tensor) -> Number | None:
    raw = _call(calls, head, "output embedding").output
    assert raw is not None
    scale = _ratio(logits[0], raw) if logits[0].shape == raw.shape else None
    if scale is None:
        raise Puzzle("its logits are not a constant multiple of its output embedding's (a soft cap?)")
    return _constant(scale)


def _ratio(value: Tensor, reference: Tensor) -> float | None:
    """The constant c with value = c * reference, if there is one."""
    value, reference = value.double(), reference.double()
    ratio = (value * reference).sum() / reference.square().sum().clamp_min(1e-300)
    return float(ratio) if same(ratio * reference, value, 1e-5) else None


def _constant(value: float) -> Number | None:
    return None if abs(value - 1) < SNAP else lambda _: value


def _sublayers(hf: Any, calls: list[Call], path: str, blocks: list[Call]) -> tuple[Sublayer, ...]:
    """Every sublayer that some block has; where several blocks have it, they must agree."""
    union: dict[str, Found] = {}
    written: list[set[str]] = []
    for layer, block in enumerate(blocks):
        here = read_block(block, inside(calls, f"{path}.{layer}"), hf.config)
        written.append({found.sublayer.write for found in here})
        for found in here:
            _refuse_unless_agreed(f"{path}.{layer}", found, union.setdefault(found.sublayer.write, found))
    for layer, block in enumerate(blocks):
        idle = next((write for write in union if write not in written[layer] and find(block.module, write)), None)
        if idle is not None:
            raise Puzzle(f"{path}.{layer} has {idle} but does not write through it to the stream, as other blocks do")
    return tuple(replace(found.sublayer, multiplier=_constant(found.multiplier)) for found in union.values())


def _refuse_unless_agreed(layer: str, found: Found, known: Found) -> None:
    """Blocks that write through the same path must do so in the same way: an entry says it once."""
    for field in fields(Sublayer):
        here, there = getattr(found.sublayer, field.name), getattr(known.sublayer, field.name)
        if here != there:
            raise Puzzle(f"{layer}.{found.sublayer.write} has {field.name} {here!r}, but {there!r} in an earlier block")
    if abs(found.multiplier - known.multiplier) > SNAP * abs(known.multiplier):
        raise Puzzle(
            f"{layer}.{found.sublayer.write} is multiplied by {found.multiplier:.4g}, but by {known.multiplier:.4g} in "
            "an earlier block"
        )
