"""The model, transcoders and prompt of both sides of graph.py: a folder, so that weights are the same to the last bit.

Everything is random: a Llama, one JumpReLU transcoder a layer that reads what the MLP is given and writes its output,
and thresholds that leave a set number of features active at a position. Norm gains are moved off 1, biases off 0.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BOS = 0


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, of its transcoders and of the prompt.

    Args:
        active: features active at a position and layer, on average; none at the first position.
        targets: how many logits are explained.
    """

    layers: int
    d_model: int
    heads: int
    key_heads: int
    d_head: int
    d_mlp: int
    features: int
    vocab: int
    length: int
    active: int
    targets: int = 10


SMALL = Shape(4, 128, 4, 4, 32, 512, features=1024, vocab=1024, length=12, active=10)
DENSE = Shape(6, 512, 8, 8, 64, 2048, features=8192, vocab=8192, length=32, active=20)
LONG = Shape(6, 512, 8, 8, 64, 2048, features=8192, vocab=8192, length=64, active=10)
TINY = Shape(2, 16, 2, 2, 8, 32, features=24, vocab=61, length=5, active=3, targets=2)


@dataclass(frozen=True)
class Setup:
    """What is asked, and how many features are active at each [layer, position]."""

    ids: Tensor
    targets: Tensor
    counts: Tensor


def llama(shape: Shape) -> Any:
    """A random Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.d_model, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads, head_dim=shape.d_head, intermediate_size=shape.d_mlp,
        vocab_size=shape.vocab, max_position_embeddings=512, initializer_range=shape.d_model**-0.5, bos_token_id=BOS,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    move_norms(model)
    return model


def move_norms(model: Any) -> None:
    """Gains off their initial value, where a mistake in them would not show."""
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.ndim == 1):
            parameter.add_(0.1 * torch.randn_like(parameter))


def prompt(shape: Shape) -> tuple[Tensor, Tensor]:
    """Token ids, the first of them BOS, and the ids of the logits to explain."""
    ids = torch.randint(1, shape.vocab, (shape.length,))
    ids[0] = BOS
    return ids, torch.randperm(shape.vocab)[: shape.targets]


def transcoders(model: Any, shape: Shape, ids: Tensor) -> tuple[list[dict[str, Tensor]], Tensor]:
    """A transcoder's tensors a layer, on the model's device, and how many of its features are active where."""
    found: list[dict[str, Tensor]] = []
    counts = torch.zeros(shape.layers, shape.length, dtype=torch.long)
    for layer, x in enumerate(mlp_inputs(model, ids)):
        tensors = {
            "W_enc": torch.randn(shape.features, shape.d_model, device=x.device) * shape.d_model**-0.5,
            "b_enc": torch.randn(shape.features, device=x.device) * 0.1,
            "W_dec": torch.randn(shape.features, shape.d_model, device=x.device) * shape.d_model**-0.5,
            "b_dec": torch.randn(shape.d_model, device=x.device) * 0.1,
        }
        reading = x[1:] @ tensors["W_enc"].T + tensors["b_enc"]
        # Midway between two readings, so that rounding on either side cannot make another feature active.
        kept = reading.flatten().topk(shape.active * len(reading) + 1).values[-2:]
        threshold = kept.mean()
        found.append(tensors | {"threshold": threshold.expand(shape.features).contiguous()})
        counts[layer, 1:] = (reading > threshold).sum(dim=1)
    return found, counts


def mlp_inputs(model: Any, ids: Tensor) -> list[Tensor]:
    """What each layer's MLP is given, [position, d_model]."""
    inputs: list[Tensor] = []
    hooks = [layer.mlp.register_forward_pre_hook(lambda _, x: inputs.append(x[0][0])) for layer in model.model.layers]
    with torch.no_grad():
        model.model(input_ids=ids[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return inputs


def save_setup(shape: Shape, folder: Path) -> Setup:
    """Write the model, the transcoders in circuit-tracer's layout, and the prompt; the prompt comes back."""
    from safetensors.torch import save_file
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    model = llama(shape)
    model.save_pretrained(folder / "model")
    ids, targets = prompt(shape)
    made, counts = transcoders(model, shape, ids)
    (folder / "transcoders").mkdir()
    for layer, tensors in enumerate(made):
        named = {"activation_function.threshold" if name == "threshold" else name: t for name, t in tensors.items()}
        save_file(named, folder / "transcoders" / f"layer_{layer}.safetensors")
    lines = ["model_kind: transcoder_set", "feature_input_hook: mlp.hook_in", "feature_output_hook: mlp.hook_out"]
    (folder / "transcoders" / "config.yaml").write_text("\n".join(lines) + "\n")
    asked = {"ids": ids.tolist(), "targets": targets.tolist(), "counts": counts.tolist(), "shape": asdict(shape)}
    (folder / "prompt.json").write_text(json.dumps(asked))
    return Setup(ids, targets, counts)


def load_setup(folder: Path) -> Setup:
    """The prompt of a folder that `save_setup` wrote."""
    asked = json.loads((folder / "prompt.json").read_text())
    return Setup(*(torch.tensor(asked[name]) for name in ("ids", "targets", "counts")))
