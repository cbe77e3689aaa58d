"""A model's own neurons as targets: rows of an MLP's first map, weighted by what its activation function makes of them.

    plain        row W_up                                       explains the pre-activation less b_up
    gated        row act(g) W_up (+ act'(g) u W_gate)           explains the activation, less what biases add

The partial derivatives act(g) and act'(g) u are taken from the model's own module by one backward pass, since every
neuron depends on its own gate and up alone: no table of activation functions is kept.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.engine.maps import NormAt
from whence.engine.readers import Reader
from whence.errors import UnsupportedModelError
from whence.model.hooks import hooked, main_output
from whence.model.linear import constant_of, matrix_of
from whence.model.trace import Write


@dataclass(frozen=True, eq=False)
class NeuronReader(Reader):
    """Neurons of one MLP: rows up_weight * W_up (+ gate_weight * W_gate), weights by position; node = p * n + j."""

    read: Float[Tensor, "pos d_model"]
    up: Float[Tensor, "neuron d_model"]
    gate: Float[Tensor, "neuron d_model"] | None
    up_weight: Float[Tensor, "pos neuron"] | None  # None: 1
    gate_weight: Float[Tensor, "pos neuron"] | None
    activations: Float[Tensor, "pos neuron"]
    bias: Float[Tensor, " neuron"] | None = None  # of the first map, for plain neurons

    def rows(self, node: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k d_model"], Float[Tensor, " k"]]:
        position, neuron = node // len(self.up), node % len(self.up)
        rows = self.up[neuron]
        if self.up_weight is not None:
            rows = rows * self.up_weight[position, neuron][:, None]
        if self.gate is not None and self.gate_weight is not None:
            rows = rows + self.gate[neuron] * self.gate_weight[position, neuron][:, None]
        return rows, (rows * self.read[position]).sum(-1)

    def slope(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        """1 for gated neurons, whose rows explain the activation; the secant a / pre-activation for plain ones."""
        if self.up_weight is not None:
            return self.read.new_ones(len(node))
        value = self.rows(node)[1]
        value = value if self.bias is None else value + self.bias[node % len(self.up)]
        return torch.where(value == 0, 0.0, self.activation(node) / torch.where(value == 0, 1.0, value))

    def activation(self, node: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
        return self.activations[node // len(self.up), node % len(self.up)]


def neuron_reader(
    stage: int, norm: NormAt, write: Write, how: Literal["frozen", "derivative"], like: Tensor, lock: Any
) -> NeuronReader:
    """The reader of one MLP's neurons.

    Raises:
        UnsupportedModelError: the family's entry does not say which map the neurons read through.
    """
    writer = write.writer
    assert write.sublayer is not None
    assert isinstance(write.input, Tensor)
    if writer.up is None:
        raise UnsupportedModelError(f"{writer.key}: its neurons' input weights are not known; use a dictionary")
    read, neurons = write.sublayer.input[0].to(like), write.input.shape[-1]
    if writer.gate is None:
        up = matrix_of(writer.up, neurons, read.shape[-1], like)
        bias = constant_of(writer.up, read.shape[-1], like)
        activation = write.input[0].to(like)
        return NeuronReader(stage, norm, True, read.norm(dim=-1), read, up, None, None, None, activation, bias)
    fused = writer.gate is writer.up
    both = matrix_of(writer.up, neurons * (1 + fused), read.shape[-1], like)
    with lock:  # hooks belong to the whole model
        by_gate, by_up = _partials(write, neurons)
    gate = both[:neurons] if fused else matrix_of(writer.gate, neurons, read.shape[-1], like)
    return NeuronReader(
        stage,
        norm,
        True,
        read.norm(dim=-1),
        read,
        up=both[neurons:] if fused else both,
        gate=gate if how == "derivative" else None,
        up_weight=by_up.to(like),
        gate_weight=by_gate.to(like) if how == "derivative" else None,
        activations=write.input[0].to(like),
    )


def _partials(write: Write, neurons: int) -> tuple[Float[Tensor, "pos neuron"], Float[Tensor, "pos neuron"]]:
    """Derivatives of each gated neuron by its own gate and up."""
    writer = write.writer
    assert write.sublayer is not None
    assert writer.gate is not None
    assert writer.up is not None
    leaves: dict[nn.Module, Tensor] = {}
    activation: list[Tensor] = []

    def cut(module: nn.Module) -> Any:
        def replace(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
            leaves[module] = main_output(output).detach().requires_grad_()
            return leaves[module]

        return replace

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        activation.append(args[0])

    maps = list(dict.fromkeys((writer.gate, writer.up)))
    with torch.enable_grad(), hooked([(module, cut(module)) for module in maps], [(writer.write, keep)]):
        writer.module(write.sublayer.input)
        gradients = torch.autograd.grad(activation[0].sum(), [leaves[module] for module in maps])
    flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    return (flat[0][:, :neurons], flat[0][:, neurons:]) if len(flat) == 1 else (flat[0], flat[1])
