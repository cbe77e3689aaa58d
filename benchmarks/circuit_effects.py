"""Node effects of circuit.py's model by attribution patching in plain torch: what thresholds and counts come from.

    effect of a feature = (slope · its direction) (activation on the patched prompt − on the clean one)
    effect of an error  = slope · (error on the patched prompt − on the clean one)

with slope the metric's gradient in what a site gives on the clean prompt. One forward and backward pass, and a forward.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def run(model: Any, ids: Tensor, keep: Callable[[str, Tensor], object]) -> Tensor:
    """Logits [pair, position, token] of one forward pass; `keep` is shown what every site gives."""
    core = model.gpt_neox
    modules = {"embed": core.embed_in}
    for i, block in enumerate(core.layers):
        modules |= {f"attn_{i}": block.attention, f"mlp_{i}": block.mlp, f"resid_{i}": block}

    def hook(site: str) -> Callable[..., None]:
        return lambda _module, _given, out: void(keep(site, out[0] if isinstance(out, tuple) else out))

    hooks = [module.register_forward_hook(hook(site)) for site, module in modules.items()]
    logits = model(input_ids=ids, use_cache=False).logits
    for one in hooks:
        one.remove()
    return logits


def void(_: object) -> None:
    """A hook that gives something changes the output."""


def encode(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Features [..., feature] of x [..., d_model]."""
    return ((x - tensors["bias"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]).relu()


def attribution(
    model: Any,
    saes: Mapping[str, Mapping[str, Tensor]],
    prompts: tuple[Tensor, Tensor],
    metric: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Attribution patching at the clean prompts.

    Args:
        model: a GPT-NeoX whose weights ask for no gradient.
        saes: an autoencoder's tensors a site.
        prompts: token ids [pair, position], clean and patched.
        metric: a number a pair, from logits.

    Returns:
        Effects [pair, position, feature + 1] a site, the error last.
    """
    clean: dict[str, Tensor] = {}
    patch: dict[str, Tensor] = {}
    model.get_input_embeddings().weight.requires_grad_()
    metric(run(model, prompts[0], lambda site, x: (x.retain_grad(), clean.update({site: x})))).sum().backward()
    model.get_input_embeddings().weight.requires_grad_(requires_grad=False)
    run(model, prompts[1], lambda site, x: patch.update({site: x}))
    effects: dict[str, Tensor] = {}
    for site, x in clean.items():
        slope, change = x.grad, patch[site] - x.detach()
        assert slope is not None
        features = encode(saes[site], patch[site]) - encode(saes[site], x.detach())
        error = change - features @ saes[site]["decoder.weight"].T
        by_feature = slope @ saes[site]["decoder.weight"] * features
        effects[site] = torch.cat([by_feature, (slope * error).sum(-1, keepdim=True)], dim=-1)
    return effects


def threshold(effects: Tensor, kept: int) -> float:
    """What so many of the effects [...] exceed in size, midway to the next one."""
    above = effects.flatten().abs().topk(kept + 1).values.double()
    return float(above[-2:].mean())


def kept_counts(effects: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """How many nodes of a site have a larger effect, [pair, position]."""
    return {site: (one.abs() > limit).sum(-1) for site, one in effects.items()}
