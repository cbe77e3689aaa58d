"""The targets of a graph as rows: directions behind the final norm, their constants and the numbers they explain.

A token's number is the model's own logit before any softcap, logit scale included; a custom direction's is its product
with what the final norm put out. Demeaned, as circuit-tracer has it, every token's direction loses the mean row of the
unembedding. Cost: rows of the unembedding; one product with all of it to demean.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.linearize import Linearized
from whence.model.linear import constant_of, pull_linear
from whence.model.model import Model
from whence.targets.attribution import AttributionTargets


@dataclass(frozen=True, eq=False)
class Explained:
    """Targets and what their rows need."""

    targets: AttributionTargets
    vectors: Float[Tensor, "target d_model"]
    constant: Float[Tensor, " target"]
    value: Float[Tensor, " target"]
    scale: Float[Tensor, " target"]  # length of the direction times that of what it reads


def explained(
    model: Model, linear: Linearized, given: Any, max_n_logits: int, desired_logit_prob: float, *, demeaned: bool
) -> Explained:
    """What to explain at the last position kept.

    Args:
        model: the model.
        linear: the linearized prompt, its run not yet forgotten.
        given: as `AttributionTargets` takes it.
        max_n_logits: with None, at most this many tokens.
        desired_logit_prob: with None, tokens of this probability together.
        demeaned: subtract the mean over the vocabulary from tokens.
    """
    trace = linear.run
    limits: dict[str, Any] = {"max_n_logits": max_n_logits, "desired_logit_prob": desired_logit_prob}
    targets = AttributionTargets(given, model=model, logits=trace.logits[0, 0], **limits)
    vectors = targets.logit_vectors.to(linear.stream.final.inverse)
    ids = targets.vocab_indices.to(vectors.device)
    own = ids < targets.vocab_size
    safe = torch.where(own, ids, 0)
    constant = torch.where(own, model.unembedding_bias(safe).to(vectors), 0.0)
    raw = model.layout.logit_scale * trace.raw[0, 0].to(vectors)
    value = torch.where(own, raw[safe], vectors @ trace.final.output[0, -1].to(vectors))
    if demeaned:
        mean = raw.new_full((1, len(raw)), model.layout.logit_scale / len(raw))
        row = pull_linear(model.layout.head, mean, model.d_model)
        bias = constant_of(model.layout.head, model.d_model, raw)
        vectors = vectors - own[:, None] * row
        value = value - own * raw.mean()
        constant = constant - own * (0.0 if bias is None else mean[0] @ bias)
    read = trace.final.output[0, -1].to(vectors)
    return Explained(targets, vectors, constant, value, vectors.norm(dim=-1) * read.norm())
