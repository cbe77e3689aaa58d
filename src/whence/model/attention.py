"""Attention patterns and values, read from the model's own attention and, if asked, held constant.

z[q, h] = sum_k A[h, q, k] v[k, g(h)], with A the pattern and g(h) the key-value group of head h. Rows of A need not
sum to 1 (attention sinks). The pattern is always computed by the model's own eager function, so that softcaps, sinks,
scalings and windows stay right. Two ways in: transformers' attention registry (most families), and the `_attn` method
of the families that never joined it (GPT-J, GPT-Neo).

The registry needs the same name in two places. Registered without its mask function, a model silently runs with no
causal mask at all; the self-check looks for weight on the future for that reason.
Cost: eager attention, a [head, query, key] pattern per layer while it is read.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NAME = "whence"


@dataclass(frozen=True, eq=False)
class Attention:
    """What one attention module did."""

    pattern: Float[Tensor, "example head query key"]
    value: Float[Tensor, "example group key d_head"]


@dataclass(frozen=True, eq=False)
class Scored:
    """What an attention function was given to compare, and what its softmax made weights of."""

    query: Float[Tensor, "example head query d_head"]
    key: Float[Tensor, "example group key d_head"]
    score: Float[Tensor, "example head query seen"]  # scaled, capped, masked; columns after the keys are sinks
    pattern: Float[Tensor, "example head query key"]
    softcap: float | None


@dataclass(eq=False)
class AttentionTape:
    """How attention behaves while it is tapped.

    `on_given` is told of queries, keys and values before anything is done with them, `on_attention` of each module's
    pattern and value, `on_scores` (recording only) of its scores. In mode
    "record" the model's own output stands. In mode "hold" patterns are recorded on the first pass and are constants
    after it; only the value path carries a gradient.
    """

    mode: Literal["record", "hold"]
    on_attention: Callable[[nn.Module, Attention], None] | None = None
    patterns: dict[nn.Module, Tensor] | None = None
    on_scores: Callable[[Scored], None] | None = None
    on_given: Callable[[Tensor, Tensor, Tensor], None] | None = None


_tape: ContextVar[AttentionTape | None] = ContextVar("whence_attention_tape", default=None)


class _Softmaxes(TorchFunctionMode):
    """Keeps what softmax is given while inside."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.softmax, nn.functional.softmax, Tensor.softmax):
            self.given.append(args[0])
        return func(*args, **(kwargs or {}))


def _scored(
    tape: AttentionTape, query: Tensor, key: Tensor, own: Callable[[], tuple[Tensor, Tensor]], softcap: float | None
) -> Callable[[], tuple[Tensor, Tensor]]:
    """A module's own attention, its scores told to the tape if it asks."""
    if tape.on_scores is None:
        return own
    tell = tape.on_scores

    def listened() -> tuple[Tensor, Tensor]:
        with _Softmaxes() as softmaxes:
            z, pattern = own()
        tell(Scored(query, key, softmaxes.given[-1], pattern, softcap))
        return z, pattern

    return listened


def _through(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    own: Callable[[], tuple[Tensor, Tensor]],
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a module's own attention under the tape: z [example, query, head, d_head] and the pattern."""
    tape = _tape.get()
    if tape is None:
        return own()
    if tape.on_given is not None:
        tape.on_given(query, key, value)
    if tape.mode == "record":
        z, pattern = _scored(tape, query, key, own, softcap)()
        if tape.on_attention is not None:
            tape.on_attention(module, Attention(pattern, value))
        return z, pattern
    assert tape.patterns is not None
    if module not in tape.patterns:
        tape.patterns[module] = own()[1].detach()
    pattern = tape.patterns[module]
    if tape.on_attention is not None:
        tape.on_attention(module, Attention(pattern, value))
    return (pattern @ expand_groups(value, pattern.shape[1])).transpose(1, 2).contiguous(), pattern


def expand_groups(value: Float[Tensor, "example group key d_head"], heads: int) -> Tensor:
    """Values per head: key-value groups repeated for the query heads that share them."""
    return value if value.shape[1] == heads else value.repeat_interleave(heads // value.shape[1], dim=1)


def _registry_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    eager = sys.modules[type(module).__module__].eager_attention_forward

    def own() -> tuple[Tensor, Tensor]:
        return eager(module, query, key, value, attention_mask, **kwargs)

    return _through(module, query, key, value, own, kwargs.get("softcap"))


def _method_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """A stand-in for `_attn`, which works on [example, head, query, d_head]."""
    own_attn: Any = vars(type(module))["_attn"]

    def attn(self: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        def own() -> tuple[Tensor, Tensor]:
            z, pattern = own_attn(self, query, key, value, *args, **kwargs)
            return z.transpose(1, 2), pattern

        z, pattern = _through(module, query, key, value, own)
        return z.transpose(1, 2), pattern

    return attn


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, _registry_attention)
    AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def tapped(
    hf: Any, modules: tuple[nn.Module, ...], how: Literal["registry", "method"], tape: AttentionTape
) -> Generator[None]:
    """Route the attention of these modules through a tape while inside; restored on the way out, also on errors."""
    with ExitStack() as stack:
        token = _tape.set(tape)
        stack.callback(_tape.reset, token)
        if how == "registry":
            _register()
            before = hf.config._attn_implementation
            stack.callback(hf.set_attn_implementation, before)
            hf.set_attn_implementation(NAME)
        else:
            for module in modules:
                module._attn = MethodType(_method_attention(module), module)  # pyright: ignore[reportArgumentType]
                stack.callback(delattr, module, "_attn")
        yield


def future_weight(pattern: Float[Tensor, "example head query key"]) -> float:
    """The largest weight any query puts on a later key."""
    return float(pattern.triu(1).abs().max()) if pattern.shape[-1] > 1 else 0.0


@torch.no_grad()
def reach(attention: Attention) -> Float[Tensor, "example query head d_head"]:
    """Z recomputed from pattern and value."""
    return (attention.pattern @ expand_groups(attention.value, attention.pattern.shape[1])).transpose(1, 2)
