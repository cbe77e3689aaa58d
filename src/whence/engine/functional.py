"""The number to explain, as a linear functional of what the final norm put out.

With y the final norm's output, raw logits z = W y + b, and logits l = cap tanh(scale z / cap) (or scale z without a
cap):

  tokens      sum_t c_t l_t             u = sum_t c_t k_t W_t, with the secant k_t = l_t / z_t: exact, cap included
  directions  vec . y                   u = vec: exact, never capped
  metric      f(l)                      u = sum_t (df/dl_t)(dl_t/dz_t) W_t: first order, the rest is the row `nonlinear`

so that value = u . y + constant + nonlinear. Without a cap and with the tokens known, u is known before the forward
pass, which is what lets a job stream. Cost: a gather of rows of W; one product with W where every token matters.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.model.linear import constant_of, pull_linear
from whence.model.model import Model
from whence.model.trace import Trace
from whence.targets.resolve import DirectionTargets, MetricTargets, MostLikely, Resolved, TokenTargets


@dataclass(frozen=True, eq=False)
class Functional:
    """A number per (example, asked, target), and what reads it. Axes of `vectors` and `constant` may be 1."""

    vectors: Float[Tensor, "_ _ target d_model"]
    constant: Float[Tensor, "_ _ target"]
    value: Float[Tensor, "example asked target"]
    nonlinear: Float[Tensor, "example asked target"] | None
    labels: tuple[tuple[str, ...], ...]  # [example][target]
    tokens: TokenTargets | None = None  # what was explained, where it is tokens


def known_before(model: Model, resolved: Resolved) -> Float[Tensor, "_ _ target d_model"] | None:
    """The direction where no logit is needed to know it."""
    if isinstance(resolved, DirectionTargets):
        return resolved.vectors.to(model.device, model.accumulation)[None, None]
    if isinstance(resolved, TokenTargets) and model.layout.softcap is None:
        vectors = _rows(model, resolved.ids)
        if resolved.centered:
            vectors = vectors - _pull_head(model, _mean_of_logits(model, vectors))
        return vectors if resolved.foils is None else vectors - _rows(model, resolved.foils)
    return None


def _mean_of_logits(model: Model, like: Tensor) -> Float[Tensor, "_ _ target vocab"]:
    """The coefficients on raw logits whose sum is the mean logit."""
    return like.new_full((1, 1, 1, model.vocab_size), model.layout.logit_scale / model.vocab_size)


def from_known(model: Model, resolved: TokenTargets | DirectionTargets, vectors: Tensor, trace: Trace) -> Functional:
    """The functional of a known direction: its value is read off the final norm's output, at every row."""
    constant = torch.zeros(vectors.shape[:3], dtype=vectors.dtype, device=vectors.device)
    if isinstance(resolved, TokenTargets):
        constant = model.unembedding_bias(resolved.ids).to(vectors)
        constant = constant if resolved.foils is None else constant - model.unembedding_bias(resolved.foils).to(vectors)
        constant = constant - _head_bias(model, _mean_of_logits(model, vectors)) if resolved.centered else constant
    value = dot(trace.final.output.to(vectors), vectors) + constant
    return Functional(vectors, constant, value, None, labels_of(model, resolved, trace), tokens_of(resolved))


def from_logits(model: Model, resolved: Resolved, trace: Trace) -> Functional:
    """The functional of anything that needs the logits, which the trace holds at every asked row."""
    logits, raw = trace.logits.to(model.accumulation), trace.raw.to(model.accumulation)
    if isinstance(resolved, MetricTargets):
        return _metric(model, resolved, logits, raw, trace)
    if isinstance(resolved, MostLikely):
        resolved = TokenTargets(logits.argmax(-1, keepdim=True), None, resolved.centered)
    assert isinstance(resolved, TokenTargets)
    examples, asked = logits.shape[:2]
    signed = [(1.0, resolved.ids)] + ([] if resolved.foils is None else [(-1.0, resolved.foils)])
    value, vectors, constant = (torch.zeros((), device=logits.device, dtype=logits.dtype) for _ in range(3))
    for sign, ids in signed:
        ids = ids.expand(examples, asked, -1)
        secant = _secant(model, logits.gather(-1, ids), raw.gather(-1, ids)) / model.layout.logit_scale
        value = value + sign * logits.gather(-1, ids)
        vectors = vectors + sign * secant[..., None] * _rows(model, ids)
        constant = constant + sign * secant * model.unembedding_bias(ids)
    if resolved.centered:
        every = _secant(model, logits, raw)[:, :, None] / logits.shape[-1]
        value = value - logits.mean(-1, keepdim=True)
        vectors = vectors - _pull_head(model, every)
        constant = constant - _head_bias(model, every)
    return Functional(vectors, constant, value, None, labels_of(model, resolved, trace), resolved)


def tokens_of(resolved: Resolved) -> TokenTargets | None:
    """The targets, where they are tokens."""
    return resolved if isinstance(resolved, TokenTargets) else None


def own_logits(tokens: TokenTargets, trace: Trace) -> Float[Tensor, "example one target"]:
    """The asked logits, less foils, as the model itself computed them at the last asked row of each prompt."""
    logits = trace.logits[:, -1:]
    ids = tokens.ids[:, -1:].expand(len(logits), 1, -1)
    own = logits.gather(-1, ids)
    own = own - logits.mean(-1, keepdim=True) if tokens.centered else own
    if tokens.foils is None:
        return own
    return own - logits.gather(-1, tokens.foils[:, -1:].expand(len(logits), 1, -1))


def _metric(model: Model, metric: MetricTargets, logits: Tensor, raw: Tensor, trace: Trace) -> Functional:
    cap, scale = model.layout.softcap, model.layout.logit_scale
    slope = scale * (1 - (logits / cap).square()) if cap else torch.full_like(logits, scale)
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    with torch.enable_grad():
        for function, label in zip(metric.functions, metric.labels, strict=True):
            leaf = logits.detach().clone().requires_grad_()
            value = function(leaf)
            _check_metric(label, value)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            gradients.append(gradient * slope)
    value, coefficients = torch.stack(values, -1), torch.stack(gradients, 2)
    vectors, constant = _pull_head(model, coefficients), _head_bias(model, coefficients)
    linear = dot(trace.final.output.to(vectors), vectors) + constant
    labels = (metric.labels,) * len(logits)
    return Functional(vectors, constant, value, value - linear, labels)


def _check_metric(label: str, value: Float[Tensor, "example asked"]) -> None:
    if not value.requires_grad:
        raise ValueError(f"{label}: its value does not depend on the logits differentiably, so no part has an effect")
    if not bool(value.isfinite().all()):
        raise ValueError(
            f"{label}: its value is {float(value[~value.isfinite()][0].detach())} at these logits; it must be finite"
        )


def _secant(model: Model, logits: Tensor, raw: Tensor) -> Tensor:
    """L / z, whose limit at z = 0 is the constant scale; without a cap it is that scale everywhere."""
    if model.layout.softcap is None:
        return torch.full_like(logits, model.layout.logit_scale)
    near_zero = raw.abs() < 1e-6
    return torch.where(near_zero, model.layout.logit_scale, logits / torch.where(near_zero, 1.0, raw))


def _rows(model: Model, ids: Int[Tensor, "a b c"]) -> Float[Tensor, "a b c d_model"]:
    return model.unembedding(ids.flatten()).to(model.accumulation).unflatten(0, ids.shape)


def _pull_head(model: Model, coefficients: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows d_model"]:
    return pull_linear(model.layout.head, coefficients, model.d_model)


def _head_bias(model: Model, coefficients: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    bias = constant_of(model.layout.head, model.d_model, coefficients)
    return torch.zeros_like(coefficients[..., 0]) if bias is None else coefficients @ bias


def labels_of(model: Model, resolved: Resolved, trace: Trace) -> tuple[tuple[str, ...], ...]:
    """What each target is called, [example][target]. Targets that differ between positions are called by their kind."""
    examples = len(trace.batch.ids)
    if isinstance(resolved, DirectionTargets | MetricTargets):
        return (resolved.labels,) * examples
    assert isinstance(resolved, TokenTargets)
    ids = resolved.ids.expand(examples, -1, -1)
    foils = None if resolved.foils is None else resolved.foils.expand(examples, -1, -1)
    return tuple(
        tuple(
            _token_label(model, ids[e, :, t], None if foils is None else foils[e, :, t], resolved.centered)
            for t in range(ids.shape[2])
        )
        for e in range(examples)
    )


def _token_label(model: Model, ids: Tensor, foils: Tensor | None, centered: bool) -> str:
    def name(column: Tensor, otherwise: str) -> str:
        distinct = column.unique().tolist()
        return repr(model.token_text(distinct[0])) if len(distinct) == 1 else otherwise

    label = name(ids, "a token per position")
    if foils is not None:
        label += f" − {name(foils, 'a foil per position')}"
    return f"{label} − mean" if centered else label


def dot(
    x: Float[Tensor, "example asked width"], covector: Float[Tensor, "_ _ target width"]
) -> Float[Tensor, "example asked target"]:
    """X . c for every row and target, c shared along axes of size 1."""
    if covector.shape[0] == covector.shape[1] == 1:
        return x @ covector[0, 0].T
    if covector.shape[1] == 1:
        return x @ covector[:, 0].transpose(1, 2)
    return (x[:, :, None] @ covector.transpose(2, 3))[:, :, 0]
