"""Edges within an MLP in closed form: from gate or up to what the last map reads, through a pointwise nonlinearity.

    dy_t/da_s = Σ_i V[i, t] φ_i U[s, i]      φ = ∂hidden/∂(output of that map), by channel, at each token

With a gate held, the edges from `up` sum to the target; edges from a gate, and through an ungated nonlinearity, are
local derivatives. φ is taken by autograd from the MLP itself, run once more on what it was given. Cost: see `local.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.dataset.blocks import Heard, Told, Window
from whence.engine.dataset.local import Covectors, count_local
from whence.engine.dataset.sites import Reading, Writing
from whence.engine.dataset.tape import Call
from whence.model.hooks import After, first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class PointwiseKernel:
    """All edges into what one MLP's last map reads.

    Args:
        reading: the components of the last map.
        writings: of gate and up, by which of the two.
    """

    reading: Reading
    writings: tuple[tuple[str, Writing], ...]

    def count(
        self,
        slopes: Mapping[str, Float[Tensor, "token channel"]],
        heard: Heard,
        told: Mapping[str, Told],
        window: Window,
        metrics: Sequence[str],
    ) -> None:
        """Add one batch."""
        V = self.reading.V
        assert V is not None
        weights = {metric: heard.weights[metric] for metric in metrics}
        for end, writing in self.writings:
            slope, pair, source = slopes[end], (self.reading.site, writing.site), told[writing.site].value
            if writing.kind == "units":
                assert writing.U is not None
                count_local(_covectors(slope, V), writing.U, source, weights, window, pair)
            else:
                add_vector((slope * source) @ V.T, weights, window, pair)


def _covectors(slope: Float[Tensor, "token channel"], V: Float[Tensor, "target channel"]) -> Covectors:
    return lambda at, targets: slope[at][:, None] * V[targets]


def add_vector(
    D: Float[Tensor, "token target"], weights: Mapping[str, Tensor], window: Window, pair: Sequence[str]
) -> None:
    """Count a source that is one vector a token, of which D is what the targets make."""
    target, source = pair
    for metric, weight in weights.items():
        F = weight * D
        window.add((target, source), metric, (F.square() if metric == "mean_squared_attr" else F).sum(0)[:, None])


def slopes_of(
    layout: Layout, sublayer: Sublayer, modules: Mapping[str, nn.Module], outputs: Mapping[str, Tensor], call: Call
) -> dict[str, Float[Tensor, "token channel"]]:
    """φ of each map of an MLP.

    Args:
        layout: the model.
        sublayer: the MLP.
        modules: its first maps, by "gate" and "up".
        outputs: what they put out.
        call: what the MLP was called with.
    """
    leaves = {end: outputs[end].detach().requires_grad_() for end in modules}
    hidden: list[Tensor] = []

    def cut(end: str) -> After:
        return lambda args, kwargs, output: leaves[end].reshape(output.shape)

    def keep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        hidden.append(first_tensor(args, kwargs))
        return replace_first(args, kwargs, hidden[0].to(first_tensor(*call)))

    with layout.lock, torch.enable_grad():
        if sublayer.between is not None:
            hidden.append(sublayer.between(leaves["up"]))
        else:
            assert sublayer.write is not None
            with hooked([(module, cut(end)) for end, module in modules.items()], [(sublayer.write, keep)]):
                sublayer.entrance(*call[0], **call[1])
        found = torch.autograd.grad(hidden[0].sum(), list(leaves.values()))
    return {end: one.flatten(0, -2) for end, one in zip(leaves, found, strict=True)}
