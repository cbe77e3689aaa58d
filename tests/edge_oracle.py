"""Slow, obvious scores of edges between heads and MLPs: what one reader reads is moved alone, by hooks, in autograd.

Knows the module names of four families and nothing of how whence finds edges. Heads that share keys and values are
told apart on a model where each has a copy of its own.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp


@dataclass(frozen=True, eq=False)
class Reader:
    """A norm, the module behind it, and the channels of that module's output that count; None: its whole input."""

    norm: nn.Module
    module: nn.Module
    channels: slice | None


def ungrouped(hf: Any) -> Any:
    """The same function, each head with keys and values of its own."""
    config = hf.config
    groups = getattr(config, "num_key_value_heads", None)
    if groups in (None, config.num_attention_heads):
        return hf
    settings = deepcopy(config)
    settings.num_key_value_heads = config.num_attention_heads
    other = type(hf)._from_config(settings, attn_implementation="eager").to(hf.dtype).eval()
    weights = hf.state_dict()
    share, width = config.num_attention_heads // groups, config.head_dim or config.hidden_size // 4
    for name in weights:
        if ".k_proj." in name or ".v_proj." in name:
            weights[name] = weights[name].unflatten(0, (groups, width)).repeat_interleave(share, 0).flatten(0, 1)
    other.load_state_dict(weights)
    return other


class EdgeOracle:
    """A model with its readers and writers found by name."""

    def __init__(self, hf: Any) -> None:
        self.hf, self.family = hf, hf.config.model_type
        root = {"gpt_neox": "gpt_neox", "gpt2": "transformer"}.get(self.family, "model")
        body = getattr(hf, root)
        self.blocks = {"gpt_neox": "layers", "gpt2": "h"}.get(self.family, "layers")
        self.blocks = [*getattr(body, self.blocks)]
        self.final_norm = {"gpt_neox": "final_layer_norm", "gpt2": "ln_f"}.get(self.family, "norm")
        self.final_norm = getattr(body, self.final_norm)
        self.head = hf.get_output_embeddings()
        self.heads = hf.config.num_attention_heads
        self.busy = False

    # ------------------------------------------------------------ who reads, who writes
    def readers(self) -> Iterator[tuple[str, Reader]]:
        """Every reader by key, in the order of whence's rows."""
        for layer, block in enumerate(self.blocks):
            norms = {"gpt2": ("ln_1", "ln_2"), "gemma2": ("input_layernorm", "pre_feedforward_layernorm")}
            first, second = norms.get(self.family, ("input_layernorm", "post_attention_layernorm"))
            for which, end in enumerate("qkv"):
                for head in range(self.heads):
                    yield f"{layer}.attn.head:{head}.{end}", self._reader(block, getattr(block, first), which, head)
            yield f"{layer}.mlp", Reader(getattr(block, second), block.mlp, None)
        yield "metric", Reader(self.final_norm, self.head, None)

    def _reader(self, block: Any, norm: nn.Module, which: int, head: int) -> Reader:
        if self.family == "gpt2":
            module, width = block.attn.c_attn, block.attn.c_attn.nf // 3 // self.heads
            start = which * module.nf // 3 + head * width
        elif self.family == "gpt_neox":
            module = block.attention.query_key_value
            width = module.out_features // 3 // self.heads
            start = (3 * head + which) * width
        else:
            module = (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)[which]
            width = module.out_features // self.heads
            start = head * width
        return Reader(norm, module, slice(start, start + width))

    def _last_maps(self) -> list[nn.Module]:
        names = {"gpt2": ("attn", "c_proj"), "gpt_neox": ("attention", "dense")}.get(
            self.family, ("self_attn", "o_proj")
        )
        return [getattr(getattr(block, names[0]), names[1]) for block in self.blocks]

    # ------------------------------------------------------------ running
    def run(self, ids: Tensor, hooks: Callable[[], list[Any]]) -> Tensor:
        """Logits at the last token, under hooks."""
        handles = hooks()
        try:
            return self.hf(ids, use_cache=False).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()

    def values(self, ids: Tensor) -> dict[str, Tensor]:
        """What token embeddings, heads (side by side) and MLPs say, and attentions' outputs."""
        found: dict[str, Tensor] = {}

        def hooks() -> list[Any]:
            keep = lambda key, x: found.__setitem__(key, (x[0] if isinstance(x, tuple) else x).detach())  # noqa: E731
            handles = [self.blocks[0].register_forward_pre_hook(lambda _, args: keep("embed", args[0]))]
            for layer, (block, last) in enumerate(zip(self.blocks, self._last_maps(), strict=True)):
                handles.append(last.register_forward_pre_hook(lambda _, args, at=layer: keep(f"{at}.z", args[0])))
                handles.append(last.register_forward_hook(lambda _, __, out, at=layer: keep(f"{at}.attn", out)))
                written = getattr(block, "post_feedforward_layernorm", block.mlp)
                handles.append(written.register_forward_hook(lambda _, __, out, at=layer: keep(f"{at}.mlp", out)))
            return handles

        with torch.no_grad():
            self.run(ids, hooks)
        return found

    def writes(self, clean: Tensor, other: Tensor) -> dict[str, Tensor]:
        """What each source's difference is in the stream, [example, pos, d_model]."""
        here, there = self.values(clean), self.values(other)
        found = {"embed": there["embed"] - here["embed"]}
        for layer, (block, last) in enumerate(zip(self.blocks, self._last_maps(), strict=True)):
            delta = (there[f"{layer}.z"] - here[f"{layer}.z"]).unflatten(-1, (self.heads, -1))
            for head in range(self.heads):
                alone = torch.zeros_like(delta)
                alone[..., head, :] = delta[..., head, :]
                out = (last(alone.flatten(-2)) - last(torch.zeros_like(alone).flatten(-2))).detach()
                if self.family == "gemma2":
                    out = jvp(block.post_attention_layernorm, here[f"{layer}.attn"], out)[1].detach()
                found[f"{layer}.attn.head:{head}"] = out
            found[f"{layer}.mlp"] = there[f"{layer}.mlp"] - here[f"{layer}.mlp"]
        return found

    def field(self, ids: Tensor, reader: Reader, metric: Callable[[Tensor], Tensor]) -> Tensor:
        """The metric's gradient by the stream, as this reader alone reads it."""
        leaf: list[Tensor] = []
        stream: list[Tensor] = []

        def before_norm(_: Any, args: Any) -> None:
            if not self.busy:
                stream[:] = [args[0].detach()]

        def moved(whole: bool) -> Tensor:
            leaf[:] = [torch.zeros_like(stream[0]).requires_grad_()]
            self.busy = True
            normed = reader.norm(stream[0] + leaf[0])
            out = normed if whole else reader.module(normed)
            self.busy = False
            return out

        def after_module(_: Any, __: Any, out: Tensor) -> Tensor | None:
            if self.busy:
                return None
            assert reader.channels is not None
            new = out.clone()
            new[..., reader.channels] = moved(False)[..., reader.channels]
            return new

        def before_module(_: Any, args: Any) -> tuple[Tensor] | None:
            return None if self.busy else (moved(True),)

        def hooks() -> list[Any]:
            norm = reader.norm.register_forward_pre_hook(before_norm)
            if reader.channels is None:
                return [norm, reader.module.register_forward_pre_hook(before_module)]
            return [norm, reader.module.register_forward_hook(after_module)]

        (gradient,) = torch.autograd.grad(metric(self.run(ids, hooks)).sum(), leaf)
        return gradient

    def scores(self, clean: Tensor, other: Tensor, metric: Callable[[Tensor], Tensor]) -> dict[tuple[str, str], Tensor]:
        """Every edge, by source and target: one number an example."""
        writes, found = self.writes(clean, other), {}
        for target, reader in self.readers():
            field = self.field(clean, reader, metric)
            for source, write in writes.items():
                if self._before(source, target):
                    found[source, target] = (field * write).sum((1, 2))
        return found

    def _before(self, source: str, target: str) -> bool:
        if source == "embed" or target == "metric":
            return True
        parallel = self.family == "gpt_neox"
        place = lambda key: (int(key[0]), "mlp" in key and not parallel)  # noqa: E731
        return place(source) < place(target)
