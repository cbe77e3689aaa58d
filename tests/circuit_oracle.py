"""Slow, obvious answers about circuits: forward passes of the whole model with module outputs clamped by hooks.

Knows the module names of three families and nothing of how whence finds effects or edges.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.components.activation import Activation
from whence.components.sae import SAE
from whence.components.sites import Site

Key = tuple[int | None, str]  # layer, site


@dataclass(frozen=True, eq=False)
class Clamps:
    """A model whose sites are read and replaced by hooks."""

    hf: Any
    modules: dict[Key, tuple[torch.nn.Module, bool]]  # and whether it is what goes in that counts

    def run(self, ids: Tensor, edit: Callable[[Key, Tensor], Tensor | None]) -> Tensor:
        """The logits at the last token; `edit` may replace what passes a site."""
        handles: list[Any] = []
        for key, (module, before) in self.modules.items():
            if before:

                def ahead(_: Any, args: Any, key: Key = key) -> Any:
                    new = edit(key, args[0])
                    return None if new is None else (new, *args[1:])

                handles.append(module.register_forward_pre_hook(ahead))
            else:

                def after(_: Any, __: Any, out: Any, key: Key = key) -> Any:
                    new = edit(key, out[0] if isinstance(out, tuple) else out)
                    return None if new is None else (new, *out[1:]) if isinstance(out, tuple) else new

                handles.append(module.register_forward_hook(after))
        try:
            return self.hf(ids, use_cache=False).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()

    def values(self, ids: Tensor) -> dict[Key, Tensor]:
        """Every site's value."""
        found: dict[Key, Tensor] = {}
        with torch.no_grad():
            self.run(ids, lambda key, x: found.__setitem__(key, x.clone()))
        return found

    def clamped(self, ids: Tensor, held: dict[Key, Tensor], moved: Key, x: Tensor, target: Key) -> Tensor:
        """What arrives at a site when another is moved and those in `held` are clamped."""
        box: dict[Key, Tensor] = {}

        def edit(key: Key, value: Tensor) -> Tensor | None:
            box[key] = value
            return x if key == moved else held.get(key)

        self.run(ids, edit)
        return box[target]


def clamps(hf: Any, sites: Iterable[str]) -> Clamps:
    """Hooks for these sites of every layer, the embedding (with learned positions) first."""
    family = hf.config.model_type
    blocks = hf.gpt_neox.layers if family == "gpt_neox" else hf.transformer.h if family == "gpt2" else hf.model.layers
    attention = {"gpt_neox": "attention", "gpt2": "attn"}.get(family, "self_attn")
    output = {"gpt_neox": "dense", "gpt2": "c_proj"}.get(family, "o_proj")
    modules: dict[Key, tuple[torch.nn.Module, bool]] = {(None, "embed"): (blocks[0], True)}
    for layer, block in enumerate(blocks):
        attn = getattr(block, attention)
        found = {
            "attn_z": (getattr(attn, output), True),
            "attn_out": (getattr(attn, output), False),
            "mlp_out": (block.mlp, False),
            "mlp_out_normed": (getattr(block, "post_feedforward_layernorm", block.mlp), False),
            "resid_post": (block, False),
        }
        modules |= {(layer, site): found[site] for site in sites}
    return Clamps(hf, modules)


def random_saes(
    layers: int, widths: dict[Site, int], features: Callable[[int], int], seed: int, dtype: torch.dtype = torch.float64
) -> list[SAE]:
    """SAEs with biases, a different number of features at each site, of the asked vector widths."""
    torch.manual_seed(seed)
    found: list[SAE] = []
    for layer in range(layers):
        for site, d in widths.items():
            n = features(len(found))
            enc, dec = (torch.randn(n, d, dtype=dtype) / d**0.5 for _ in range(2))
            bias = 0.2 * torch.randn(n, dtype=dtype)
            found.append(SAE(layer, enc, bias, dec, 0.2 * torch.randn(d, dtype=dtype), Activation("relu"), site))
    return found
