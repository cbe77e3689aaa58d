"""Every module call of one forward pass on a few tokens, so that a model's structure can be read from what it computed.

Inputs and outputs are copied as [token, width], because some modules see [example, pos, width], some
[example * pos, width], and some models add to their stream in place.
Cost: one forward pass; the inputs and outputs of every module, at a handful of tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.model.hooks import After, hooked


class Puzzle(Exception):
    """What was not understood of a model, as a clause; `infer` makes a sentence of it."""


@dataclass(frozen=True, eq=False)
class Call:
    """One module, called once."""

    path: str
    module: nn.Module
    input: Float[Tensor, "token width"] | None  # its first tensor; None where it is no row per token
    output: Float[Tensor, "token out"] | None
    tensors: int  # how many tensors it was given


def observe(hf: Any, ids: Int[Tensor, "one pos"]) -> tuple[list[Call], Float[Tensor, "one pos vocab"]]:
    """The calls of one forward pass, in the order in which they returned (inner before outer), and the logits."""
    calls: list[Call] = []

    def watch(path: str, module: nn.Module) -> tuple[nn.Module, After]:
        def take(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            first = _by_token(given[0], ids) if given else None
            main = output[0] if isinstance(output, tuple) else output
            calls.append(Call(path, module, first, _by_token(main, ids), len(given)))

        return module, take

    with torch.no_grad(), hooked([watch(path, module) for path, module in hf.named_modules() if path]):
        logits = hf(input_ids=ids, use_cache=False).logits
    return calls, logits


def _by_token(value: Any, ids: Tensor) -> Tensor | None:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
        return None
    rows = value.detach().reshape(-1, value.shape[-1])
    return rows.clone() if len(rows) == ids.numel() else None


def same(a: Tensor | None, b: Tensor | None, tolerance: float = 0.0) -> bool:
    """Whether two recordings hold the same numbers, up to a share of their norm."""
    if a is None or b is None or a.shape != b.shape:
        return False
    if tolerance == 0.0:
        return torch.equal(a, b)
    return float((a.double() - b.double()).norm()) <= tolerance * float(b.double().norm())


def inside(calls: list[Call], path: str) -> list[Call]:
    """The calls of everything below a module, with paths that start there."""
    prefix = path + "."
    return [
        Call(call.path.removeprefix(prefix), call.module, call.input, call.output, call.tensors)
        for call in calls
        if call.path.startswith(prefix)
    ]
