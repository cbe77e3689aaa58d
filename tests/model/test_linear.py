"""A linear module read backwards gives its weight, whatever it is wrapped in."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from families import WIDTH, fresh
from whence.model.linear import ROWS_AT_ONCE, accumulation_dtype, constant_of, is_plain, pull_linear, rows_of, weight_of
from whence.model.model import Model
from whence.model.recorder import record

LAST_MAPS = ("o_proj", "down_proj")


class Int8Linear(nn.Module):
    """Weights stored in 8 bits, one scale a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.register_buffer("scale", weight.abs().amax(1, keepdim=True) / 127)
        self.register_buffer("weight", (weight / self.scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x) * self.scale.to(x), self.bias)


class Hidden(nn.Module):
    """A linear map that does not look like one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def conv1d(outputs: int, inputs: int) -> Conv1D:
    layer = Conv1D(outputs, inputs)
    nn.init.normal_(layer.bias)
    return layer


def linears() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "linear": nn.Linear(5, 3),
        "without bias": nn.Linear(5, 3, bias=False),
        "Conv1D": conv1d(3, 5),
        "int8": Int8Linear(nn.Linear(5, 3)),
        "hidden": Hidden(nn.Linear(5, 3)),
        "float64": nn.Linear(5, 3).double(),
        "bfloat16": nn.Linear(5, 3).bfloat16(),
    }


@pytest.mark.parametrize("name", linears())
def test_a_covector_comes_back_as_the_transposed_map_says(name: str) -> None:
    module = linears()[name]
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float64 if name == "float64" else torch.float32
    covector, x = torch.randn(2, 7, 3, dtype=dtype), torch.randn(7, 5, dtype=dtype)
    pulled, constant = pull_linear(module, covector, 5), constant_of(module, 5, covector)
    with torch.no_grad():
        forward = (module(x) * covector[0]).sum(-1)
    assert pulled.shape == (2, 7, 5)
    backward = (pulled[0] * x).sum(-1) + (0 if constant is None else covector[0] @ constant)
    assert torch.allclose(forward, backward, atol=5e-2 if name == "bfloat16" else 1e-5)


def test_asking_gives_the_weight_itself_for_a_plain_module() -> None:
    for plain in (nn.Linear(5, 3), conv1d(3, 5)):
        assert is_plain(plain)
        asked = pull_linear(Hidden(plain), torch.eye(3), 5)
        assert torch.allclose(asked, weight_of(plain), atol=1e-7)
        assert torch.allclose(constant_of(Hidden(plain), 5, asked), constant_of(plain, 5, asked))


def test_more_covectors_than_are_pulled_at_once_come_back_in_order() -> None:
    plain = nn.Linear(5, 3)
    covector = torch.randn(2 * ROWS_AT_ONCE + 3, 3)
    assert torch.allclose(pull_linear(Hidden(plain), covector, 5), covector @ weight_of(plain), atol=1e-6)


@pytest.mark.parametrize("name", linears())
def test_rows_are_those_of_the_weight_in_the_accumulation_dtype(name: str) -> None:
    module = linears()[name]
    rows = rows_of(module, torch.tensor([2, 0]), 5, 3)
    assert rows.dtype == (torch.float64 if name == "float64" else torch.float32)
    assert torch.allclose(rows, pull_linear(module, torch.eye(3, dtype=rows.dtype)[[2, 0]], 5).to(rows), atol=1e-2)
    assert not rows.requires_grad


def test_a_subclass_an_override_or_integer_weights_are_not_read_from_the_tensor() -> None:
    class Adapter(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x.sum(-1, keepdim=True)

    wrapped = nn.Linear(5, 3)
    wrapped.forward = lambda x: 2 * nn.Linear.forward(wrapped, x)
    assert not any(is_plain(module) for module in (Adapter(5, 3), wrapped, linears()["int8"]))
    assert torch.allclose(pull_linear(wrapped, torch.eye(3), 5), 2 * weight_of(wrapped))
    adapter = Adapter(5, 3)
    assert torch.allclose(pull_linear(adapter, torch.eye(3), 5), weight_of(adapter) + 1)
    assert not is_plain(nn.Linear(5, 3, device="meta"))


def test_sums_are_kept_in_at_least_float32() -> None:
    kept = {d: accumulation_dtype(d) for d in (torch.bfloat16, torch.float16, torch.float32, torch.float64)}
    assert kept == {**dict.fromkeys(kept, torch.float32), torch.float64: torch.float64}


def quantised() -> Any:
    hf = fresh("llama biased")
    for block in hf.model.layers:
        block.self_attn.o_proj = Int8Linear(block.self_attn.o_proj)
        block.mlp.down_proj = Int8Linear(block.mlp.down_proj)
    hf.lm_head = Int8Linear(hf.lm_head)
    return hf


def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=[*LAST_MAPS, "lm_head"], init_lora_weights=False)
    with warnings.catch_warnings():  # peft asks transformers for a property by its old name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return get_peft_model(fresh("llama biased"), config).eval()


def offloaded() -> Any:
    from accelerate import cpu_offload

    return cpu_offload(fresh("llama biased"), execution_device=torch.device("cpu"))


@pytest.mark.parametrize("wrap", [quantised, adapted, offloaded])
def test_a_wrapped_model_loads_and_its_last_maps_account_for_their_own_outputs(wrap: Any) -> None:
    model = Model(wrap())
    assert max(check.error for check in model.checks) < 1e-5
    batch = model.batch([[5, 9, 12, 40]])
    trace = record(model.layout, batch, batch.rows(None))
    covector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    for write in trace.writes:
        assert not is_plain(write.writer.write)
        assert isinstance(write.input, Tensor)
        width = write.input.shape[-1]
        constant = constant_of(write.writer.write, width, covector)
        assert constant is not None
        parts = write.input @ pull_linear(write.writer.write, covector, width) + covector @ constant
        assert torch.allclose(parts, write.output @ covector, atol=1e-4)
    ids = torch.tensor([3, 60])
    logits = trace.final.output @ model.unembedding(ids).T + model.unembedding_bias(ids)
    assert torch.allclose(logits, trace.logits[..., ids], atol=1e-4)
