"""What neurons read: rows against autograd through the MLP itself, and against small steps of it."""

import pytest
import torch
from torch import Tensor

from families import fresh, loaded, prompts
from graphs import by_autograd, by_engine, furthest, linearized
from whence.components.neurons import Neurons
from whence.engine.linearize import Linearized
from whence.errors import UnsupportedModelError
from whence.model.model import Model

IDS = prompts(1, 3)
GATED, PLAIN = ("llama", "gemma2", "phi3", "llama biased"), ("gpt2", "opt", "gpt_neox", "phi", "starcoder2")


@pytest.mark.parametrize("name", [*PLAIN, "mixtral"])
def test_plain_neurons_read_their_rows(name: str) -> None:
    model = loaded(name, torch.float64)
    found = by_engine(model, IDS, Neurons())
    if name == "mixtral":
        assert not [key for key in found.targets if "neuron" in key]
        return
    assert furthest(by_autograd(model, IDS, Neurons()), found) < 1e-6


def _mlp(model: Model, linear: Linearized, layer: int) -> tuple[Tensor, Tensor]:
    """What the MLP was given, and its neurons' activations."""
    write = next(w for w in linear.run.writes if w.writer.name == "mlp" and w.writer.layer == layer)
    return write.sublayer.input[0], write.input[0]


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("gate", ["frozen", "derivative"])
def test_a_gated_neurons_row_is_the_derivative_of_its_activation(name: str, gate: str) -> None:
    model = loaded(name, torch.float64)
    linear = linearized(model, IDS, Neurons(gate))
    reader = linear.readers[1]
    x, _ = _mlp(model, linear, 1)
    width = len(reader.up)
    rows, _ = reader.rows(torch.arange(3 * width))
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    change = (rows.view(3, width, -1) * noise[:, None]).sum(-1)
    step = 1e-4
    up, down = (_activations(model, x + sign * step * noise, x, gate) for sign in (1, -1))
    assert ((up - down) / (2 * step) - change).abs().max() < 1e-6 * change.abs().max()


def _activations(model: Model, x: Tensor, at: Tensor, gate: str) -> Tensor:
    """Neurons of layer 1's MLP on x, the gate held at its value on `at` where it is frozen."""
    mlp = model.hf.model.layers[1].mlp
    held = at if gate == "frozen" else x
    with torch.no_grad():
        if hasattr(mlp, "gate_up_proj"):
            return mlp.activation_fn(mlp.gate_up_proj(held).chunk(2, -1)[0]) * mlp.gate_up_proj(x).chunk(2, -1)[1]
        return mlp.act_fn(mlp.gate_proj(held)) * mlp.up_proj(x)


def test_a_frozen_gates_row_explains_the_activation_itself() -> None:
    model = loaded("llama", torch.float64)
    linear = linearized(model, IDS, Neurons())
    reader = linear.readers[2]
    _, activation = _mlp(model, linear, 2)
    nodes = torch.arange(activation.numel())
    assert torch.allclose(reader.rows(nodes)[1], activation.flatten())
    assert torch.equal(reader.activation(nodes), activation.flatten())
    assert (reader.slope(nodes) == 1).all()


def test_a_plain_neuron_passes_its_pre_activation_on_by_the_secant() -> None:
    model = loaded("gpt2", torch.float64)
    reader = linearized(model, IDS, Neurons()).readers[0]
    nodes = torch.arange(3 * 128)
    bias = model.hf.transformer.h[0].mlp.c_fc.bias.detach()
    pre_activation = reader.rows(nodes)[1] + bias[nodes % 128]
    assert torch.allclose(reader.slope(nodes) * pre_activation, reader.activation(nodes))


def test_an_mlp_whose_first_map_is_not_known_is_refused() -> None:
    model = Model(fresh("gpt2"))
    for writer in model.layout.writers:
        object.__setattr__(writer, "up", None)
    with pytest.raises(UnsupportedModelError, match=r"0.mlp: its neurons' input weights are not known"):
        linearized(model, IDS, Neurons())
