"""Where in a model's forward pass a vector a token can be read and exchanged.

A site lies in a tensor that passes one module. Most are that tensor; some are read from it and what passed elsewhere
before (`base`): the middle of a block is its input plus what attention adds, the embedding the first block's input less
the learned position. Then a step of the site is `factor` steps of the tensor. Families that flatten a batch into lines
are met as [example, pos, width] all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.hooks import After, Before, first_tensor, main_output, replace_first
from whence.model.layout import Layout, Writer
from whence.model.norms import probe_norm

Change = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Spot:
    """The tensor that goes into a module, or comes out of it."""

    module: nn.Module
    before: bool

    def hook(self, change: Change) -> "Hook":
        """Call a function on the tensor; what it returns takes the tensor's place."""
        return Hook(self, change)


@dataclass(frozen=True, eq=False)
class Hook:
    """A function of the tensor at a spot."""

    spot: Spot
    change: Change

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """As a forward hook."""
        changed = self.change(main_output(output))
        return (changed, *output[1:]) if changed is not None and isinstance(output, tuple) else changed

    def ahead(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As a forward pre-hook."""
        changed = self.change(first_tensor(args, kwargs))
        return None if changed is None else replace_first(args, kwargs, changed)


def as_hooks(hooks: list[Hook]) -> tuple[list[tuple[nn.Module, After]], list[tuple[nn.Module, Before]]]:
    """The hooks as `whence.model.hooks.hooked` takes them."""
    return (
        [(hook.spot.module, hook.after) for hook in hooks if not hook.spot.before],
        [(hook.spot.module, hook.ahead) for hook in hooks if hook.spot.before],
    )


@dataclass(frozen=True, eq=False)
class Site:
    """One vector a token: where it passes, how it is read there, and how a step of it is made."""

    spot: Spot
    base: Spot | None = None
    read: Callable[[Tensor, Tensor], Tensor] | None = None  # (the tensor, what passed `base`) -> the site's value
    factor: float = 1.0

    def captures(self, seen: dict[str, Tensor]) -> list[Hook]:
        """The hook that keeps what passes `base`."""
        return [] if self.base is None else [self.base.hook(lambda tensor: seen.update(base=tensor))]

    def value(self, tensor: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """The site's value."""
        return tensor if self.read is None else self.read(tensor, seen["base"])

    def stepped(self, tensor: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """The tensor with the site moved by `step` at the masked lines."""
        view = by_example(tensor, mask.shape[1]).clone()
        view[mask] += (self.factor * step).to(view)
        return view.reshape(tensor.shape)


def by_example(tensor: Tensor, length: int) -> Tensor:
    """A tensor [example, pos, width], also where a family has flattened its first two axes."""
    return tensor if tensor.ndim > 2 else tensor.reshape(-1, length, tensor.shape[-1])


def added(writer: Writer) -> Spot:
    """What a writer adds to the stream, before its multiplier."""
    return Spot(writer.write if writer.post_norm is None else writer.post_norm, before=False)


def writer_of(layout: Layout, layer: int, *names: str) -> Writer:
    """The writer of one of these names in a layer.

    Raises:
        ValueError: the layer or the writer does not exist; names what the layer holds.
    """
    if layer >= len(layout.blocks):
        raise ValueError(f"layer {layer} does not exist: the model has layers 0 to {len(layout.blocks) - 1}")
    for writer in layout.of(layer):
        if writer.name in names:
            return writer
    holds = ", ".join(writer.name for writer in layout.of(layer))
    raise ValueError(f"layer {layer} of {type(layout.hf).__name__} has no {' or '.join(names)}; it holds {holds}")


def site_of(layout: Layout, name: str, layer: int) -> Site:
    """A site of the stream or of a sublayer by its name.

    Raises:
        ValueError: no such layer, or a layer without that sublayer.
        UnsupportedModelError: a model that has no such place.
    """
    if layer >= len(layout.blocks):
        raise ValueError(f"layer {layer} does not exist: the model has layers 0 to {len(layout.blocks) - 1}")
    block = layout.blocks[layer]
    match name:
        case "resid_pre":
            return Site(Spot(block, before=True))
        case "resid_post":
            return Site(Spot(block, before=False))
        case "attn_z":
            return Site(Spot(writer_of(layout, layer, "attn").write, before=True))
        case "attn_out":
            return Site(Spot(writer_of(layout, layer, "attn").write, before=False))
        case "attn_out_normed":
            return Site(added(writer_of(layout, layer, "attn")))
        case "embed":
            return embedding_site(layout)
        case "mlp_in":
            return Site(Spot(writer_of(layout, layer, "mlp", "moe").entrance, before=True))
        case "mlp_out":
            return Site(Spot(writer_of(layout, layer, "mlp", "moe").module, before=False))
        case "mlp_out_normed":
            writer = writer_of(layout, layer, "mlp", "moe")
            return Site(Spot(writer.module if writer.post_norm is None else writer.post_norm, before=False))
        case "mlp_in_normalized":
            return _normalized(writer_of(layout, layer, "mlp", "moe"))
        case "resid_mid":
            return _middle(layout, layer)
        case _:
            raise ValueError(f"{name!r} is no site of the stream or of a sublayer")


def read_site(layout: Layout, name: str, layer: int) -> Site:
    """A site to be read only: the middle of the stream as the MLP's norm sees it, wherever it lies."""
    if name != "resid_mid":
        return site_of(layout, name, layer)
    writer = writer_of(layout, layer, "mlp", "moe")
    return Site(Spot(writer.entrance if writer.norm is None else writer.norm, before=True))


def embedding_site(layout: Layout) -> Site:
    """The token embedding, as it stands before the first block."""
    spot = Spot(layout.blocks[0], before=True)
    if layout.position is None:
        return Site(spot)
    return Site(spot, Spot(layout.position, before=False), lambda stream, position: stream - position)


def position_site(layout: Layout) -> Site:
    """The learned position embedding.

    Raises:
        ValueError: a model without one.
    """
    if layout.position is None:
        raise ValueError(f"{type(layout.hf).__name__} has no learned position embedding, so there is no pos_embed")
    spot = Spot(layout.blocks[0], before=True)
    return Site(spot, Spot(layout.position, before=False), lambda stream, position: position.expand_as(stream))


def _normalized(writer: Writer) -> Site:
    """c(x) / sigma, the norm's value before its gain and bias."""
    norm = writer.norm
    if norm is None:
        raise UnsupportedModelError(f"{writer.key} reads the stream through no norm, so it has no mlp_in_normalized")

    def read(output: Tensor, x: Tensor) -> Tensor:
        probed = probe_norm(norm, x.shape[-1])
        return probed.centre(x.to(probed.gain)) * probed.inverse_scale(x, output)[..., None]

    return Site(Spot(norm, before=False), Spot(norm, before=True), read)


def _middle(layout: Layout, layer: int) -> Site:
    """Between the two halves of a block."""
    first = [writer for writer in layout.of(layer) if writer.stage == 0]
    if len(first) != 1 or len(layout.of(layer)) == 1:
        raise UnsupportedModelError(
            f"block {layer} of {type(layout.hf).__name__} has no middle of its stream: its sublayers read in parallel. "
            "Name resid_pre or resid_post instead."
        )
    multiplier = first[0].multiplier

    def read(output: Tensor, stream: Tensor) -> Tensor:
        return stream + multiplier * output.reshape(stream.shape)

    return Site(added(first[0]), Spot(layout.blocks[layer], before=True), read, 1 / multiplier)
