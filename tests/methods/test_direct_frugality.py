"""What a call costs and leaves behind, and models whose last maps are not plain: quantised, adapted, offloaded."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

import families
import whence

IDS = families.prompts(2, 7)


# ------------------------------------------------------------ cost
class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            own = isinstance(tensor, Tensor) and not tensor._is_view() and func.namespace == "aten"
            # A view of small storage (expand) takes no memory, whatever its shape.
            self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size() if own else 0)
        return result


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    yield seen
    handle.remove()


def wide() -> whence.Model:
    """Many tokens, so that [heads or neurons, positions, d_model] would stand out; a small vocabulary."""
    return whence.Model(families.fresh("gpt2", n_inner=64, n_embd=32, n_head=8))


@pytest.mark.parametrize(("by", "units"), [("head", 8), ("neuron", 64)])
@pytest.mark.parametrize("targets", [5, None])
def test_no_tensor_of_units_positions_and_width_is_ever_made(by: str, units: int, targets: int | None) -> None:
    model, ids = wide(), families.prompts(4, 48)
    positions = ids.numel()
    with Largest() as largest:
        scores = whence.dla(model, ids, targets, by=by, position=None)
    per_layer = units * positions * model.d_model
    everything = scores.values.numel()
    # What a forward pass of this model makes anyway: 3 x d_model for q, k, v; patterns; logits at every asked row.
    forward = positions * max(3 * model.d_model, 8 * 48, model.vocab_size)
    assert largest.elements <= max(forward, everything, positions * model.d_model * 2)
    assert largest.elements < per_layer


def test_the_strongest_neurons_are_found_without_storing_all_neurons() -> None:
    hf = families.fresh("gpt2", n_layer=8, n_inner=256)
    model, ids = whence.Model(hf), families.prompts(4, 32)
    stored = 8 * 256 * ids.numel()
    with Largest() as largest:
        whence.dla(model, ids, 5, by="neuron", position=None, top=10)
    assert largest.elements < stored / 4  # one layer at a time, and its sum


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"targets": 5}, 2),
        ({"targets": 5, "position": None}, 2),  # the tokens are known: one row a prompt, for the check
        ({"targets": None}, 2),
        ({"targets": None, "position": [0, 3]}, 4),
        ({"targets": whence.probability(5), "position": [1]}, 2),
        ({"targets": whence.activation("1.mlp.neuron:3"), "position": None}, 2),
        ({"targets": 5, "by": "neuron", "top": 3, "position": [0, 3]}, 2),
    ],
)
def test_the_output_embedding_runs_over_the_asked_rows_alone(options: dict[str, Any], rows: int) -> None:
    model = whence.Model(families.tiny("gpt2"))
    with calls_of(model.hf.lm_head) as seen:
        whence.dla(model, IDS, **options)
    assert [x.shape[:-1].numel() for x in seen] == [rows]


@pytest.mark.parametrize("targets", [5, None, whence.activation("1.mlp.neuron:3")])
def test_a_call_is_one_forward_pass(targets: object) -> None:
    model = whence.Model(families.tiny("gpt2"))
    with calls_of(model.hf.transformer.h[0].mlp) as seen:
        whence.dla(model, IDS, targets, by="neuron", position=None)
    assert len(seen) == 1


# ------------------------------------------------------------ nothing is left behind
def hooks(hf: nn.Module) -> Counter[str]:
    return Counter(
        name
        for name, module in hf.named_modules()
        for table in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for _ in table
    )


CALLS = [
    {"targets": 5, "by": "source_token", "fold_value_bias": True},
    {"targets": None, "by": "head", "top": 2, "position": None},
    {"targets": whence.probability(5), "by": "neuron"},
    {"targets": 64},
    {"targets": whence.metric(lambda z: z[:2], "wide")},
    {"targets": whence.activation("9.mlp.neuron:0.up")},
]


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "gpt_oss"])
def test_hooks_attention_and_weights_are_as_before_also_after_errors(name: str) -> None:
    hf = families.fresh(name)
    attention, before = hf.config._attn_implementation, hooks(hf)
    model = whence.Model(hf)
    weights = {key: value.clone() for key, value in hf.state_dict().items()}
    instances = {path: set(vars(module)) for path, module in hf.named_modules()}
    logits = hf(IDS).logits
    failed = 0
    for options in CALLS:
        try:
            whence.dla(model, IDS, **options)
        except (ValueError, NotImplementedError):
            failed += 1
        assert hooks(hf) == before
        assert hf.config._attn_implementation == attention
        assert {path: set(vars(module)) for path, module in hf.named_modules()} == instances
    assert failed >= 3
    assert all(torch.equal(value, weights[key]) for key, value in hf.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in hf.parameters())
    assert torch.equal(hf(IDS).logits, logits)


def test_an_error_inside_the_forward_pass_leaves_no_hooks() -> None:
    hf = families.fresh("llama")
    model = whence.Model(hf)

    def broken(*_: Any) -> None:
        raise RuntimeError("out of luck")

    handle = hf.model.layers[1].mlp.register_forward_pre_hook(broken)
    before = hooks(hf)
    with pytest.raises(RuntimeError, match="out of luck"):
        whence.dla(model, IDS, 5, by="source_token")
    assert hooks(hf) == before
    assert hf.config._attn_implementation != "whence"
    handle.remove()
    assert whence.dla(model, IDS, 5).values.isfinite().all()


# ------------------------------------------------------------ last maps that are not plain
class Int8Linear(nn.Module):
    """Weight-only int8, a scale a row."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        scale = dense.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("packed", (dense.weight.detach() / scale).round().to(torch.int8))
        self.bias = dense.bias

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.packed.to(x.dtype) * self.scale, self.bias)

    def dense(self) -> nn.Linear:
        made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        with torch.no_grad():
            made.weight.copy_(self.packed * self.scale)
            if self.bias is not None:
                made.bias.copy_(self.bias)
        return made


OPTIONS = [
    {"targets": [5, 6], "foils": [7], "by": "head", "position": None},
    {"targets": [5, 6], "by": "neuron", "position": None},
    {"targets": None, "by": "component"},
    {"targets": 5, "centered": True},
    {"targets": whence.log_probability(5), "by": "neuron", "top": 5},
]


def same_as(model: whence.Model, dense: whence.Model) -> None:
    """A wrapped model has a bias row more here and there, of zeros; every other row agrees."""
    gated = any(writer.gate is not None for writer in dense.layout.writers)
    neuron = whence.activation("1.mlp.neuron:3.up" if gated else "1.mlp.neuron:3")
    for options in [*OPTIONS, {"targets": neuron, "by": "head"}]:
        wrapped, plain = (whence.dla(m, IDS, **options) for m in (model, dense))
        assert float((wrapped.remainder.abs() / wrapped.magnitude).max()) <= 1e-5
        rows = [wrapped.keys.index(key) for key in plain.keys]
        assert torch.allclose(wrapped.values[rows], plain.values, atol=1e-5), options
        assert torch.allclose(wrapped.target, plain.target, atol=1e-5)
        others = [i for i in range(len(wrapped.keys)) if i not in rows]
        assert float(wrapped.values[others].abs().sum()) < 1e-5


@pytest.mark.parametrize("name", ["llama", "llama biased", "gemma2", "granite"])
def test_int8_last_maps_score_as_their_dense_matrices(name: str) -> None:
    quantised, dense = families.fresh(name), families.fresh(name)
    for hf, make in (
        (quantised, lambda linear: Int8Linear(linear)),
        (dense, lambda linear: Int8Linear(linear).dense()),
    ):
        hf.lm_head = make(hf.lm_head)
        for layer in hf.model.layers:
            layer.self_attn.o_proj = make(layer.self_attn.o_proj)
            layer.mlp.down_proj = make(layer.mlp.down_proj)
            layer.mlp.up_proj = make(layer.mlp.up_proj)
    same_as(whence.Model(quantised), whence.Model(dense))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own use of transformers
def test_lora_adapters_score_as_the_merged_weights() -> None:
    import peft

    config = peft.LoraConfig(r=4, target_modules=["o_proj", "down_proj", "up_proj", "lm_head"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(families.fresh("llama"), config).eval()
    model = whence.Model(adapted)
    torch.manual_seed(0)
    merged = peft.get_peft_model(families.fresh("llama"), config).eval().merge_and_unload()
    same_as(model, whence.Model(merged))


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # nn.Linear, Conv1D
def test_an_offloaded_model_scores_as_one_in_memory(name: str) -> None:
    import accelerate

    hf = families.fresh(name)
    accelerate.cpu_offload(hf, execution_device=torch.device("cpu"))
    assert hf.lm_head.weight.device.type == "meta"  # else nothing is tested
    same_as(whence.Model(hf), whence.Model(families.tiny(name)))
    assert hf.lm_head.weight.device.type == "meta"
