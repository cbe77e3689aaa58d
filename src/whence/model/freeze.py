"""Hold attention patterns, norm scales and sublayer outputs constant on an unmodified model.

With these held, the map from the stream before the first block to the raw logits is affine, so for a step h of any
size f(x + h) - f(x) = J h and J(x + h) = J(x). The first forward pass inside records the constants and returns the
model's own values bit for bit, with the frozen map's gradient; every later pass replays them on whatever input it gets,
for one recorded prompt also on a batch of any size.

  attention       z[q, h] = sum_k A[h, q, k] v[k, g(h)]   A constant, v live
  norm            N(x) = gain * c(x) / sigma + bias       sigma constant
  MLP, MoE, SSM   what its last map is given is constant, and so what it writes (a graph puts dictionaries there); what
                  is added behind that map stays

Cost: a few hooks a block and, for patterns, eager attention. What a recurrence carries from token to token is not held,
only what it writes.
"""

from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.attention import Attention, AttentionTape, tapped
from whence.model.hooks import After, Before, first_tensor, hooked
from whence.model.layout import Layout
from whence.model.norms import probe_norm


@dataclass(eq=False)
class Hold:
    """What is held; `release` lets go of it for the passes that follow."""

    tape: AttentionTape
    active: bool = True

    def release(self) -> None:
        """Let later passes run as the model is."""
        self.active, self.tape.mode = False, "record"


@contextmanager
def frozen(layout: Layout) -> Generator[None]:
    """Inside, the first forward pass records all constants and later ones replay them on inputs of the same length.

    Raises:
        UnsupportedModelError: the family's attention cannot be held.
    """
    refuse_unless_frozen(layout)
    with held(layout, attention=True, norms=True, layers=range(len(layout.blocks))):
        yield


def refuse_unless_frozen(layout: Layout) -> None:
    """Refuse a family whose attention cannot be held.

    Raises:
        UnsupportedModelError: naming the model.
    """
    if not layout.architecture.frozen or layout.architecture.patterns is None:
        raise UnsupportedModelError(
            f"{type(layout.hf).__name__}: attention patterns of this family cannot be held constant, so it has no "
            "attribution graphs. `whence models` lists the families that do."
        )


@contextmanager
def held(
    layout: Layout,
    *,
    attention: bool = False,
    norms: bool = False,
    layers: Collection[int] = (),
    on_attention: Callable[[nn.Module, Attention], None] | None = None,
) -> Generator[Hold]:
    """Inside, the first forward pass records the chosen constants and later ones replay them.

    Args:
        layout: the model.
        attention: hold the patterns.
        norms: hold the scale of every norm, the final one included.
        layers: hold what the MLPs, experts and recurrences of these layers write.
        on_attention: told of each module's pattern and value in every pass, held or not.

    Raises:
        UnsupportedModelError: patterns are needed and the family's cannot be read.
    """
    hold = Hold(AttentionTape("hold" if attention else "record", on_attention, {}))
    with layout.lock, hooked(*_hooks(layout, hold, norms, layers)), ExitStack() as stack:
        if layout.attention and (attention or on_attention is not None):
            how = layout.architecture.patterns
            if how is None:
                raise UnsupportedModelError(
                    f"{type(layout.hf).__name__}: attention patterns of this family cannot be read, so they cannot be "
                    "held or edited. Leave attention live, and name whole heads rather than pairs (~)."
                )
            stack.enter_context(tapped(layout.hf, tuple(w.module for w in layout.attention), how, hold.tape))
        yield hold


def _hooks(
    layout: Layout, hold: Hold, norms: bool, layers: Collection[int]
) -> tuple[list[tuple[nn.Module, After]], list[tuple[nn.Module, Before]]]:
    found = [norm for writer in layout.writers for norm in (writer.norm, writer.post_norm) if norm is not None]
    after = [(m, hold_norm(m, hold)) for m in dict.fromkeys([*found, layout.final_norm]) if norms]
    writers = [writer for writer in layout.writers if writer.name != "attn" and writer.layer in layers]
    after += [(w.shared_gate, _hold_output(hold)) for w in writers if w.shared_gate is not None]
    return after, [(module, _hold_input(hold)) for module in dict.fromkeys(writer.write for writer in writers)]


def hold_norm(norm: nn.Module, hold: Hold) -> After:
    """A hook that holds a norm at the scale of its first call."""
    constants: dict[str, Any] = {}

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if not hold.active:
            return None
        x = first_tensor(args, kwargs)
        if not constants:
            probed = probe_norm(norm, x.shape[-1])
            constants.update(norm=probed, scale=probed.inverse_scale(x.detach(), output.detach())[..., None])
            linear = _linear(constants, x)
            return output.detach() + (linear - linear.detach()).to(output)  # the model's own value, the frozen gradient
        return (_linear(constants, x) + constants["norm"].bias).to(output)

    return keep


def _linear(constants: dict[str, Any], x: Tensor) -> Tensor:
    probed = constants["norm"]
    return probed.gain * probed.centre(x.to(probed.gain)) * _spread(constants["scale"], x)


def _hold_output(hold: Hold) -> After:
    constant: list[Tensor] = []

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if not hold.active:
            return None
        if not constant:
            constant.append(output.detach())
        return _spread(constant[0], output)

    return keep


def _hold_input(hold: Hold) -> Before:
    """A linear map is given one tensor; experts are given the routing too."""
    constant: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not hold.active:
            return None
        if not constant:
            constant.append((args, kwargs))
        own_args, own_kwargs = constant[0]
        named = {name: _replay(own, kwargs[name]) for name, own in own_kwargs.items()}
        return tuple(_replay(own, now) for own, now in zip(own_args, args, strict=True)), named

    return keep


def _replay(own: Any, now: Any) -> Any:
    return _spread(own.detach(), now) if isinstance(own, torch.Tensor) else own


def _spread(constant: Tensor, like: Tensor) -> Tensor:
    """The constant of one prompt repeated for every example of a batch; some families flatten the batch into lines."""
    times = like.shape[0] // constant.shape[0]
    return constant if times == 1 else constant.repeat(times, *[1] * (constant.ndim - 1))
