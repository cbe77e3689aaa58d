"""Where an attention's values come from: which outputs, of which of its maps, they are.

Attribution graphs carry directions back through v = W_V N(x) + b_V. Families keep W_V as a map of its own, or as rows
of a fused one, split or interleaved as they like. No layout is read from a class name: the attention is run on random
vectors, and the map whose outputs hold the values bit for bit is the one; where they stand in it are the rows of W_V.

Cost: one forward pass of a few tokens a model, kept for the model's life. Knows no values that are computed otherwise:
clipped, normed, or compressed first (multi-head latent attention); those are refused.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.batch import Batch
from whence.model.hooks import After, Before, first_tensor, hooked, replace_first
from whence.model.layout import Layout, Writer
from whence.model.linear import accumulation_dtype, constant_of, is_plain, pull_linear, weight_of
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted

PROBE_TOKENS = 8  # enough that in 16 bits two outputs do not agree at all of them by chance


@dataclass(frozen=True, eq=False)
class ValueMap:
    """The rows of one module that compute the values, in the order of (group, channel of the head)."""

    module: nn.Module
    rows: Int[Tensor, " channel"]
    groups: int
    outputs: int
    input_multiplier: float  # what the sublayer is given, as a multiple of what its norm put out

    def weight(self, width: int, device: torch.device) -> Float[Tensor, "channel d_model"]:
        """W_V, in the accumulation dtype."""
        if is_plain(self.module):
            weight = weight_of(self.module)
            return weight[self.rows.to(weight.device)].to(device, accumulation_dtype(weight.dtype))
        parameter = next(p for p in self.module.parameters() if p.dtype.is_floating_point)
        chosen = nn.functional.one_hot(self.rows, self.outputs).to(device, accumulation_dtype(parameter.dtype))
        return pull_linear(self.module, chosen, width)

    def bias(self, width: int, like: Tensor) -> Float[Tensor, " channel"]:
        """b_V."""
        bias = constant_of(self.module, width, like)
        return like.new_zeros(len(self.rows)) if bias is None else bias[self.rows.to(bias.device)]


_found: WeakKeyDictionary[Any, dict[int, ValueMap]] = WeakKeyDictionary()


def value_maps(layout: Layout) -> dict[int, ValueMap]:
    """The value map of each attention, by layer.

    Raises:
        UnsupportedModelError: an attention whose values are no outputs of a map that reads the stream.
    """
    with layout.lock:
        if layout.hf not in _found:
            _found[layout.hf] = _search(layout)
        return _found[layout.hf]


def _search(layout: Layout) -> dict[int, ValueMap]:
    if not layout.attention:
        return {}
    vocabulary = min(int(getattr(layout.embedding, "num_embeddings", 2)), 1 << 16)
    device = next((p.device for p in layout.embedding.parameters() if p.device.type != "meta"), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, PROBE_TOKENS), generator=generator).to(device)
    batch = Batch(ids, torch.tensor([PROBE_TOKENS], device=device))
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [(module, _keeper(module, seen)) for writer in layout.attention for module in _inside(writer)]
    norms = frozenset(writer.norm for writer in layout.attention if writer.norm is not None)
    wanted = Wanted(attention=True, sublayers=True, around=norms)
    # Some values may be zero on all of these tokens; on random vectors none is that has a row of its own.
    hooks += [(norm, _random(generator)) for norm in norms]
    bare = [writer.entrance for writer in layout.attention if writer.norm is None]
    with hooked(hooks, [(module, _random_input(generator)) for module in bare]):
        trace = record(layout, batch, torch.arange(PROBE_TOKENS, device=device)[None], wanted=wanted)
    writes = {write.writer: write for write in trace.writes}
    return {writer.layer: _locate(writer, writes[writer], trace, seen) for writer in layout.attention}


def _inside(writer: Writer) -> list[nn.Module]:
    """Maps within the attention, outer ones first, so that an adapter is found before what it wraps."""
    return [module for module in writer.module.modules() if module is not writer.module and module is not writer.write]


def _keeper(module: nn.Module, seen: dict[nn.Module, tuple[Tensor, Tensor]]) -> After:
    def keep(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(output, Tensor):
            seen[module] = (first_tensor(args, kwargs), output.clone())  # a family may clip it in place

    return keep


def _random(generator: torch.Generator) -> After:
    return lambda args, kwargs, output: torch.randn(output.shape, generator=generator).to(output)


def _random_input(generator: torch.Generator) -> Before:
    def replace(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = first_tensor(args, kwargs)
        return replace_first(args, kwargs, torch.randn(given.shape, generator=generator).to(given))

    return replace


def _locate(writer: Writer, write: Any, trace: Trace, seen: dict[nn.Module, tuple[Tensor, Tensor]]) -> ValueMap:
    value = write.attention.value[0]  # group, key, channel
    flat = value.transpose(0, 1).flatten(1)
    given = write.sublayer.input[0]
    for module in _inside(writer):
        if module not in seen:
            continue
        read, output = seen[module]
        if (
            output.numel() % PROBE_TOKENS
            or read.numel() != given.numel()
            or not torch.equal(read.view_as(given), given)
        ):
            continue
        output = output.reshape(PROBE_TOKENS, -1)
        if output.shape[1] < flat.shape[1]:
            continue
        equal = (flat.T[:, None] == output.T[None]).all(-1)  # channel, output
        if bool(equal.any(-1).all()):
            return ValueMap(
                module, equal.int().argmax(-1).cpu(), len(value), output.shape[1], _multiple(writer, given, trace)
            )
    raise UnsupportedModelError(
        f"{writer.key}: its values are not outputs of one map of the stream ({type(writer.module).__name__} clips, "
        "norms or compresses them), so directions cannot be carried back through it: no attribution graphs here."
    )


def _multiple(writer: Writer, given: Tensor, trace: Trace) -> float:
    """What a constant multiplier between norm and sublayer must be."""
    if writer.norm is None:
        return 1.0
    normed = trace.around[writer.norm].output[0].to(given.device)
    if torch.equal(normed, given):
        return 1.0
    multiple = float((normed.double() * given.double()).sum() / normed.double().square().sum())
    misfit = float((given.double() - multiple * normed.double()).norm() / given.double().norm())
    if misfit > (1e-5 if given.dtype in (torch.float32, torch.float64) else 1e-2):
        raise UnsupportedModelError(
            f"{writer.key} does not read its norm's output or a multiple of it (off by {misfit:.0e})"
        )
    return multiple
