"""Fitting dictionaries to what a model's sites read and write: least squares with few features active at a time.

All layers of a site train together on standardised activations; the scales are folded into the weights at the end:

    f = activation((x − mean_x) / scale_x · E + e)        y ≈ mean_y + scale_y (Σ_source f_source D_source + d)

TopK needs no penalty; a feature that has not fired for 50 batches learns what is left over (the auxiliary loss). ReLU
pays `l1` for each activation times its decoder's length. Cost: about 25 CPU seconds for 1000 steps of a dictionary of
512 features at d_model 128.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from whence.components.activation import Activation
from whence.progress import Progress, silent

TOP_8 = Activation("topk", k=8)
_IDLE_BATCHES = 50
_REVIVED = 32


@dataclass(frozen=True, slots=True)
class DictionaryRecipe:
    """Sizes of a dictionary and of its fitting; `documents` of 64 tokens are recorded once and drawn from."""

    n_features: int = 512
    activation: Activation = TOP_8
    steps: int = 800
    batch: int = 1024
    documents: int = 4000
    learning_rate: float = 2e-3
    l1: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights in the model's own units; `W_dec[target]` maps the sources' features, side by side, to that target."""

    W_enc: Float[Tensor, "layer feature d_model"]
    b_enc: Float[Tensor, "layer feature"]
    W_dec: tuple[Float[Tensor, "_ d_model"], ...]
    b_dec: Float[Tensor, "layer d_model"]


def fit(
    reads: Float[Tensor, "layer token d_model"],
    writes: Float[Tensor, "layer token d_model"],
    recipe: DictionaryRecipe,
    *,
    across_layers: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Fitted:
    """Return encoders of every layer and decoders from each to its own output, or also to all later layers' outputs."""
    generator = torch.Generator().manual_seed(seed)
    (mean_x, scale_x), (mean_y, scale_y) = _scale(reads), _scale(writes)
    weights = _start(reads, recipe, across_layers, rebuilds=reads is writes, generator=generator)
    optimizer = torch.optim.Adam(weights.parameters(), lr=recipe.learning_rate, fused=True)
    idle = torch.zeros(reads.shape[0], recipe.n_features)
    for step in range(recipe.steps):
        rows = torch.randint(0, reads.shape[1], (recipe.batch,), generator=generator)
        x, y = (reads[:, rows] - mean_x) / scale_x, (writes[:, rows] - mean_y) / scale_y
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        loss, fvu = weights.loss(x, y, recipe, step, idle)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(f"FVU {fvu:.4f}", step + 1, recipe.steps)
    return weights.folded(mean_x, scale_x, mean_y, scale_y)


def _scale(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(1, keepdim=True)
    return mean, torch.stack([(own - m).pow(2).mean().sqrt() for own, m in zip(x, mean, strict=True)])[:, None, None]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate: a warm-up of 100 steps, flat, then linear to zero over the last 30 %."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.3 * steps))


def _start(
    reads: Tensor, recipe: DictionaryRecipe, across_layers: bool, *, rebuilds: bool, generator: torch.Generator
) -> "_Weights":
    """Return random encoders and their transposes as decoders: full length where the input is rebuilt, else a tenth."""
    layers, _, d = reads.shape
    encoder = normalize(torch.randn(layers, d, recipe.n_features, generator=generator), dim=1)
    sources = [range(target + 1) if across_layers else range(target, target + 1) for target in range(layers)]
    length = 1.0 if rebuilds else 0.1
    return _Weights(
        sources=sources,
        encoder=encoder.requires_grad_(),
        encoder_bias=torch.zeros(layers, 1, recipe.n_features, requires_grad=True),
        decoders=[
            torch.cat([length * encoder[source].detach().T for source in own]).requires_grad_() for own in sources
        ],
        decoder_bias=torch.zeros(layers, 1, d, requires_grad=True),
    )


@dataclass(frozen=True, eq=False)
class _Weights:
    sources: list[range]
    encoder: Tensor  # [layer, d_model, feature]
    encoder_bias: Tensor
    decoders: list[Tensor]
    decoder_bias: Tensor

    def parameters(self) -> list[Tensor]:
        return [self.encoder, self.encoder_bias, *self.decoders, self.decoder_bias]

    def decode(self, features: Tensor) -> Tensor:
        sides = (torch.cat([features[source] for source in own], -1) for own in self.sources)
        return torch.stack([side @ decoder for side, decoder in zip(sides, self.decoders, strict=True)])

    def loss(self, x: Tensor, y: Tensor, recipe: DictionaryRecipe, step: int, idle: Tensor) -> tuple[Tensor, float]:
        """Return the objective, summed over layers, and the mean FVU; counts in `idle` the batches since each fired."""
        pre = torch.baddbmm(self.encoder_bias, x, self.encoder)
        features = recipe.activation(pre)
        missed = y - self.decode(features) - self.decoder_bias
        error = missed.pow(2).mean((1, 2))
        total = error.sum() + self._penalty(features, recipe, step)
        idle += 1
        idle[(features.detach() > 0).any(1)] = 0
        dead = idle > _IDLE_BATCHES
        if recipe.activation.kind == "topk" and step % 2 == 0 and dead.any():
            revived = Activation("topk", k=_REVIVED)(torch.where(dead[:, None], pre, 0.0))
            total = total + (self.decode(revived) - missed.detach()).pow(2).mean((1, 2)).sum() / 16
        return total, error.mean().item()

    def _penalty(self, features: Tensor, recipe: DictionaryRecipe, step: int) -> Tensor | float:
        if not recipe.l1:
            return 0.0
        lengths = torch.stack([decoder.norm(dim=-1) for decoder in self.decoders])[:, None]
        return recipe.l1 * min(1.0, step / 500) * (features * lengths).sum(-1).mean(1).sum()

    @torch.no_grad()
    def folded(self, mean_x: Tensor, scale_x: Tensor, mean_y: Tensor, scale_y: Tensor) -> Fitted:
        bias = self.encoder_bias - (mean_x / scale_x) @ self.encoder
        return Fitted(
            W_enc=(self.encoder / scale_x).transpose(1, 2).contiguous(),
            b_enc=bias[:, 0],
            W_dec=tuple(decoder * scale for decoder, scale in zip(self.decoders, scale_y[:, 0], strict=True)),
            b_dec=(self.decoder_bias * scale_y + mean_y)[:, 0],
        )
