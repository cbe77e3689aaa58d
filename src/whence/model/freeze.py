"""Hold attention patterns, norm scales and MLP outputs constant on an unmodified model.

With these three held, the map from the stream before the first block to the raw logits is affine, so for a step h of
any size f(x + h) - f(x) = J h and J(x + h) = J(x). The first forward pass inside records the constants and returns the
model's own values bit for bit, with the frozen map's gradient; every later pass replays them on whatever input it gets.

  attention   z[q, h] = sum_k A[h, q, k] v[k, g(h)]   A constant, v live
  norm        N(x) = gain * c(x) / sigma + bias       sigma constant
  MLP, MoE    constant output (an attribution graph puts dictionaries there)

Cost: two forward hooks a block and eager attention. Only for families whose entry says `frozen`; what has a recurrent
    state
is refused, since nothing here holds it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.attention import AttentionTape, tapped
from whence.model.hooks import After, first_tensor, hooked
from whence.model.layout import Layout
from whence.model.norms import probe_norm


@contextmanager
def frozen(layout: Layout) -> Generator[None]:
    """Inside, the first forward pass records the constants and later ones replay them on inputs of the same shape.

    Raises:
        UnsupportedModelError: the family's attention cannot be held.
    """
    architecture = layout.architecture
    if not architecture.frozen or architecture.patterns is None:
        raise UnsupportedModelError(
            f"{type(layout.hf).__name__}: attention patterns of this family cannot be held constant, so it has no "
            "attribution graphs. `whence models` lists the families that do."
        )
    norms = [norm for writer in layout.writers for norm in (writer.norm, writer.post_norm) if norm is not None]
    held = [writer.module for writer in layout.writers if writer.name in ("mlp", "moe")]
    hooks: list[tuple[nn.Module, After]] = [(m, _hold_norm(m)) for m in dict.fromkeys([*norms, layout.final_norm])]
    hooks += [(module, _hold_output()) for module in dict.fromkeys(held)]
    attention = tuple(writer.module for writer in layout.attention)
    tape = AttentionTape("hold", patterns={})
    with layout.lock, hooked(hooks), tapped(layout.hf, attention, architecture.patterns, tape):
        yield


def _hold_norm(norm: nn.Module) -> After:
    constants: dict[str, Any] = {}

    def hold(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        x = first_tensor(args, kwargs)
        if not constants:
            probed = probe_norm(norm, x.shape[-1])
            constants.update(norm=probed, scale=probed.inverse_scale(x.detach(), output.detach())[..., None])
            linear = _linear(constants, x)
            return output.detach() + (linear - linear.detach()).to(output)  # the model's own value, the frozen gradient
        return (_linear(constants, x) + constants["norm"].bias).to(output)

    return hold


def _linear(constants: dict[str, Any], x: Tensor) -> Tensor:
    probed = constants["norm"]
    return probed.gain * probed.centre(x.to(probed.gain)) * constants["scale"]


def _hold_output() -> After:
    constant: list[Any] = []

    def hold(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not constant:
            constant.append(
                tuple(o.detach() if isinstance(o, torch.Tensor) else o for o in output)
                if isinstance(output, tuple)
                else output.detach()
            )
        return constant[0]

    return hold
