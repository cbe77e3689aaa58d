"""Reading and replacing what passes four sites of the demo's own models, with forward hooks that are always removed.

The sites are the MLP's input and output, the attention's output and the stream after a block.

Position 0 (`<bos>`) is neither recorded nor replaced: its activations are an attention sink many times larger than the
others', the same in every prompt, and no dictionary should spend features on it.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.dictionaries import CrossLayerTranscoder
from whence.components.one_layer import weighted
from whence.components.sets import DictionarySet
from whence.components.sites import ReadSite, Site

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Rebuild: TypeAlias = Callable[
    [int, Tensor], Tensor
]  # (layer, what is read there) -> what takes the place of the site's output

_MODULES = {"mlp_in": "mlp", "mlp_out": "mlp", "attn_out": "self_attn", "resid_post": ""}  # "" is the block itself


def _hooked(model: "LlamaForCausalLM", site: ReadSite, hook: Callable[[int, Any, Any], Any]) -> ExitStack:
    """Return hooks on this site's module in every layer, called with (layer, arguments, output); close to remove."""
    if site not in _MODULES:
        raise ValueError(f"the demo's own hooks do not know the site {site!r}; they know {', '.join(_MODULES)}.")
    hooks = ExitStack()
    for layer, block in enumerate(model.model.layers):
        module = block.get_submodule(_MODULES[site])
        hooks.callback(module.register_forward_hook(lambda _, args, output, at=layer: hook(at, args, output)).remove)
    return hooks


def _at(site: ReadSite, args: tuple[Any, ...], output: Any) -> Tensor:
    """Return the site's value in a hook; the attention returns its output beside its weights."""
    if site == "mlp_in":
        return args[0]
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def record(
    model: "LlamaForCausalLM", ids: Int[Tensor, "document pos"], site: ReadSite, *, batch: int = 128
) -> Float[Tensor, "layer token d_model"]:
    """Return what passed a site at every token but the first of each document."""
    chunks: list[Tensor] = []
    seen: list[Tensor] = []
    with _hooked(model, site, lambda _, args, output: seen.append(_at(site, args, output)[:, 1:].flatten(0, 1))):
        for part in ids.split(batch):
            seen.clear()
            model(part)
            chunks.append(torch.stack(seen))
    return torch.cat(chunks, 1)


@contextmanager
def replaced(
    model: "LlamaForCausalLM", reads: ReadSite, writes: Site, rebuild: Rebuild, layers: tuple[int, ...]
) -> Generator[None]:
    """Within the block, the model runs with these layers' outputs at `writes` rebuilt; other layers are only read."""

    def swap(layer: int, args: Any, output: Any) -> Any:
        old, new = _at(writes, args, output), rebuild(layer, _at(reads, args, output))
        if layer not in layers:
            return None
        whole = torch.cat([old[:, :1], new[:, 1:]], 1)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    with _hooked(model, writes, swap):
        yield


def rebuilder(dictionaries: DictionarySet) -> Rebuild:
    """Return the function that puts dictionaries in a site's place, layers in rising order within one forward pass."""
    first = dictionaries.dictionaries[0]
    return _CrossLayer(first) if isinstance(first, CrossLayerTranscoder) else partial(_one_layer, dictionaries)


def _one_layer(dictionaries: DictionarySet, layer: int, x: Tensor) -> Tensor:
    found = dictionaries[layer]
    assert not isinstance(found, CrossLayerTranscoder)
    return found.decode(found.encode(x))


class _CrossLayer:
    """Keeps each layer's features for the later layers that they also write to."""

    def __init__(self, transcoder: CrossLayerTranscoder) -> None:
        self.transcoder, self.features = transcoder, dict[int, Tensor]()

    def __call__(self, layer: int, x: Tensor) -> Tensor:
        own = self.transcoder
        self.features[layer] = own.encoder_of(layer).encode(x)
        writes = [weighted(self.features[source], own.decoder_of(source, layer)) for source in range(layer + 1)]
        return torch.stack(writes).sum(0) + own.bias_of(layer)
