"""Reading and replacing what passes four sites of the demo's own models: the MLP's input and output, the attention's output
and the stream after a block. Plain forward hooks, removed also on errors.

Position 0 (`<bos>`) is neither recorded nor replaced: its activations are an attention sink many times larger than the
others', the same in every prompt, and no dictionary should spend features on it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.components.dictionaries import CrossLayerTranscoder
from whence.components.loading import DictionarySet

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

DemoSite = Literal["mlp_in", "mlp_out", "attn_out", "resid_post"]
Rebuild = Callable[[int, Tensor], Tensor]  # (layer, what is read there) -> what takes the place of the site's output


def _module(model: "LlamaForCausalLM", site: DemoSite, layer: int) -> nn.Module:
    block = model.model.layers[layer]
    return {"mlp_in": block.mlp, "mlp_out": block.mlp, "attn_out": block.self_attn, "resid_post": block}[site]


def _at(site: DemoSite, args: tuple[Any, ...], output: Any) -> Tensor:
    """Return the site's value in a hook; the attention returns its output beside its weights."""
    if site == "mlp_in":
        return args[0]
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def record(
    model: "LlamaForCausalLM", ids: Int[Tensor, "document pos"], site: DemoSite, *, batch: int = 128
) -> Float[Tensor, "layer token d_model"]:
    """Return what passed a site at every token but the first of each document."""
    chunks: list[Tensor] = []
    for part in ids.split(batch):
        seen: dict[int, Tensor] = {}
        with ExitStack() as hooks:
            for layer in range(len(model.model.layers)):

                def keep(_: nn.Module, args: Any, output: Any, layer: int = layer) -> None:
                    seen[layer] = _at(site, args, output)[:, 1:].flatten(0, 1)

                hooks.callback(_module(model, site, layer).register_forward_hook(keep).remove)
            model(part)
        chunks.append(torch.stack([seen[layer] for layer in sorted(seen)]))
    return torch.cat(chunks, 1)


@contextmanager
def replaced(
    model: "LlamaForCausalLM", reads: DemoSite, writes: DemoSite, rebuild: Rebuild, layers: tuple[int, ...]
) -> Iterator[None]:
    """Within the block, the model runs with these layers' outputs at `writes` rebuilt; other layers are only read."""
    with ExitStack() as hooks:
        for layer in range(len(model.model.layers)):

            def swap(_: nn.Module, args: Any, output: Any, layer: int = layer) -> Any:
                old, new = _at(writes, args, output), rebuild(layer, _at(reads, args, output))
                if layer not in layers:
                    return None
                whole = torch.cat([old[:, :1], new[:, 1:]], 1)
                return (whole, *output[1:]) if isinstance(output, tuple) else whole

            hooks.callback(_module(model, writes, layer).register_forward_hook(swap).remove)
        yield


def rebuilder(dictionaries: DictionarySet) -> Rebuild:
    """Return the function that puts dictionaries in a site's place, layers in rising order within one forward pass."""
    first = dictionaries.dictionaries[0]
    if isinstance(first, CrossLayerTranscoder):
        return _CrossLayer(first)

    def through(layer: int, x: Tensor) -> Tensor:
        found = dictionaries[layer]
        if isinstance(found, CrossLayerTranscoder):
            raise TypeError("a set holds one kind only")
        return found.decode(found.encode(x))

    return through


class _CrossLayer:
    """Keeps each layer's features for the later layers that they also write to."""

    def __init__(self, transcoder: CrossLayerTranscoder) -> None:
        self.transcoder, self.features = transcoder, dict[int, Tensor]()

    def __call__(self, layer: int, x: Tensor) -> Tensor:
        own = self.transcoder
        self.features[layer] = own.activation(x @ own.W_enc[layer].T + own.b_enc[layer])
        writes = [self.features[source] @ own.W_dec[source][:, layer - source] for source in range(layer + 1)]
        return torch.stack(writes).sum(0) + own.b_dec[layer]
