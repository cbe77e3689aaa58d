"""Experts, and neurons inside them, as places: their part of a mixture's write is computed anew and exchanged.

    expert e        w (W_down h + b)       a vector; where the router did not choose e there is nothing to change
    its neuron i    h_i                    a number; a step of it moves the write by w W_down[:, i]

Cost: one expert's pass over the lines it was chosen for.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.errors import UnsupportedModelError
from whence.interventions.seat import Seat
from whence.model.experts import bias_of, down_map, expert_sizes, has_bias, neurons
from whence.model.hooks import main_output
from whence.model.layout import Layout
from whence.model.sites import Hook, Spot, writer_of
from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class _ExpertHook(Hook):
    """A hook that needs the routing, which the experts are called with."""

    place: "ExpertPlace"
    seat: Seat

    @torch.no_grad()
    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        out = main_output(output)
        examples = len(self.seat.run.lengths)
        mask = self.seat.mask(examples, out.shape[:-1].numel() // examples, out.device)
        if self.seat.idle or not mask.any():
            return None
        changed = self.place.changed(self.seat, mask, out, [*args, *kwargs.values()][:3])
        return (changed, *output[1:]) if isinstance(output, tuple) and changed is not None else changed


@dataclass(frozen=True, eq=False)
class ExpertPlace:
    """One expert's weighted write, or one of its neurons."""

    experts: Any
    expert: int
    neuron: int | None

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """One hook behind the experts."""
        return [], [_ExpertHook(Spot(self.experts, before=False), lambda _: None, self, seat)]

    def changed(self, seat: Seat, mask: Tensor, output: Tensor, call: list[Tensor]) -> Tensor | None:
        """The output of all experts with this one's part exchanged."""
        width = call[0].shape[-1]
        hidden, *routing = (tensor.reshape(-1, tensor.shape[-1]) for tensor in call)
        index, weight = sorted(routing, key=lambda tensor: tensor.is_floating_point())
        if weight.shape != index.shape:  # weights of every expert rather than of the chosen ones
            weight = weight.gather(1, index)
        lines = mask.flatten()
        share = (weight * (index == self.expert)).sum(-1)[lines, None]
        h = neurons(self.experts, self.expert, hidden[lines])
        down = down_map(self.experts, self.expert, h)
        own = self._value(h, down, share)
        new = seat.swap(own, mask)
        if new is None:
            return None
        step = (new - own).to(own)
        step = step * (share != 0) if self.neuron is None else share * step[:, None] * down[:, self.neuron]
        flat = output.reshape(-1, width).clone()
        flat[lines] += step.to(flat)
        return flat.reshape(output.shape)

    def _value(self, h: Tensor, down: Tensor, share: Tensor) -> Tensor:
        if self.neuron is not None:
            return h[:, self.neuron]
        write = h @ down.T
        return share * (write + bias_of(self.experts, self.expert, write) if has_bias(self.experts) else write)


def expert_place(layout: Layout, node: Node, layer: int) -> ExpertPlace:
    """Where an expert or a neuron of one lies.

    Raises:
        ValueError: an expert or neuron that does not exist.
        UnsupportedModelError: experts that cannot be told apart.
    """
    experts: Any = writer_of(layout, layer, "moe").write
    count, inner = expert_sizes(experts)
    expert, neuron = node.index if isinstance(node.index, tuple) else (node.index, None)
    if expert is None or expert >= count or (neuron or 0) >= inner:
        raise ValueError(f"{node}: the layer has experts 0 to {count - 1} with neurons 0 to {inner - 1}")
    if not hasattr(experts, "gate_up_proj"):
        raise UnsupportedModelError(f"{node}: {type(experts).__name__} does not hold its experts' gates in one matrix")
    return ExpertPlace(experts, expert, neuron)
