"""A probed norm is gain * c(x) / sigma + bias, whatever its class and conventions."""

import pytest
import torch
from torch import Tensor, nn

from whence.errors import UnsupportedModelError
from whence.model.norms import probe_norm


class OnePlusGain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype != torch.float64 else x
        return ((1 + self.weight.to(wide)) * wide * wide.square().mean(-1, keepdim=True).add(1e-6).rsqrt()).to(x)


class Bare(nn.Module):
    """No parameters at all, like OLMo's."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:])


class Gated(nn.Module):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate


def perturbed(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return norm


def norms(width: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "LayerNorm": perturbed(nn.LayerNorm(width)),
        "LayerNorm without bias": perturbed(nn.LayerNorm(width, bias=False)),
        "RMSNorm": perturbed(nn.RMSNorm(width, eps=1e-5)),
        "1 + gain": OnePlusGain(width),
        "no parameters": Bare(),
    }


@pytest.mark.parametrize("width", [32, 33, 3])
@pytest.mark.parametrize("name", norms(4))
def test_a_norm_is_affine_at_the_scale_it_had(name: str, width: int) -> None:
    norm = norms(width)[name].double()
    x = 3 * torch.randn(4, 7, width, dtype=torch.float64) + 1
    with torch.no_grad():
        y = norm(x)
    norm_map = probe_norm(norm, width)
    # A norm without parameters does not say its dtype, so it is probed in the default one.
    tolerance = 1e-5 if norm_map.gain.dtype == torch.float32 else 1e-12
    assert (tolerance == 1e-5) == (name == "no parameters")
    assert norm_map.centred == (name in ("LayerNorm", "LayerNorm without bias", "no parameters"))
    assert norm_map.misfit(x, y) < tolerance
    covector = torch.randn(4, 7, width).to(norm_map.gain)
    parts = (x.to(covector) * norm_map.pull(covector)).sum(-1) * norm_map.inverse_scale(x, y)
    whole = (y.to(covector) * covector).sum(-1)
    assert torch.allclose(parts + norm_map.constant(covector), whole, atol=100 * tolerance)


@pytest.mark.parametrize("name", ["RMSNorm", "1 + gain", "LayerNorm"])
def test_the_gain_is_the_weight_itself_up_to_its_epsilon(name: str) -> None:
    norm = norms(32)[name]
    gain = probe_norm(norm, 32).gain
    expected = norm.weight + 1 if name == "1 + gain" else norm.weight
    assert torch.allclose(gain, expected, rtol=2e-5)


def test_a_bfloat16_gain_is_read_without_rounding_what_it_multiplies() -> None:
    norm = norms(32)["RMSNorm"].bfloat16()
    gain = probe_norm(norm, 32).gain
    assert gain.dtype == torch.float32
    assert torch.allclose(gain, norm.weight.float(), rtol=1e-5)


def test_probing_leaves_the_norm_alone_and_carries_no_gradient() -> None:
    norm = norms(32)["LayerNorm"].bfloat16()
    before = norm.weight.clone()
    norm.register_forward_hook(lambda *_: pytest.fail("the module itself was called"))
    norm_map = probe_norm(norm, 32)
    assert norm.weight.dtype == torch.bfloat16
    assert torch.equal(norm.weight, before)
    assert not norm_map.gain.requires_grad


def test_a_map_that_is_no_norm_does_not_fit() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(32, 32).double(), torch.randn(5, 32, dtype=torch.float64)
    with torch.no_grad():
        assert probe_norm(linear, 32).misfit(x, linear(x)) > 0.1


def test_a_norm_of_two_inputs_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="Gated is not a norm of one input"):
        probe_norm(Gated(), 32)
