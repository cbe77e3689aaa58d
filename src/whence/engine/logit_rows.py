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
from whence.targets.custom import CustomTarget
from whence.targets.specs import LogitDifference


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
        given: as `AttributionTargets` takes it, or a `logit_difference` of two tokens.
        max_n_logits: with None, at most this many tokens.
        desired_logit_prob: with None, tokens of this probability together.
        demeaned: subtract the mean over the vocabulary from tokens.
    """
    trace = linear.run
    limits: dict[str, Any] = {"max_n_logits": max_n_logits, "desired_logit_prob": desired_logit_prob}
    pair = pair_of(model, given) if isinstance(given, LogitDifference) else None
    given = given if pair is None else [difference(model, pair)]
    targets = AttributionTargets(given, model=model, logits=trace.logits[0, 0], **limits)
    vectors = targets.logit_vectors.to(linear.stream.final.inverse)
    ids = targets.vocab_indices.to(vectors.device)
    own = ids < targets.vocab_size
    safe = torch.where(own, ids, 0)
    constant = torch.where(own, model.unembedding_bias(safe).to(vectors), 0.0)
    raw = model.layout.logit_scale * trace.raw[0, 0].to(vectors)
    value = torch.where(own, raw[safe], vectors @ trace.final.output[0, -1].to(vectors))
    if pair is not None:  # a direction has no constant, but the difference of two logits may
        both = torch.tensor(pair, device=vectors.device)
        biases = model.unembedding_bias(both).to(vectors)
        constant, value = (biases[:1] - biases[1:]), (raw[both[:1]] - raw[both[1:]])
    if demeaned:
        mean = raw.new_full((1, len(raw)), model.layout.logit_scale / len(raw))
        row = pull_linear(model.layout.head, mean, model.d_model)
        bias = constant_of(model.layout.head, model.d_model, raw)
        vectors = vectors - own[:, None] * row
        value = value - own * raw.mean()
        constant = constant - own * (0.0 if bias is None else mean[0] @ bias)
    read = trace.final.output[0, -1].to(vectors)
    return Explained(targets, vectors, constant, value, vectors.norm(dim=-1) * read.norm())


def pair_of(model: Model, given: LogitDifference) -> tuple[int, int]:
    """The ids of the two tokens.

    Raises:
        ValueError: lists of several tokens: a graph explains one prompt.
    """
    ids: list[int] = []
    for side in (given.answers, given.foils):
        several: list[Any] = [side] if isinstance(side, str | int) else list(side)
        if len(several) != 1:
            raise ValueError(f"logit_difference of {side!r}: a graph explains one prompt, so give one token a side")
        ids.append(model.token_id(several[0]))
    return ids[0], ids[1]


def difference(model: Model, pair: tuple[int, int]) -> CustomTarget:
    """The direction that reads the difference."""
    answer, foil = model.unembedding(torch.tensor(pair, device=model.device)).float()
    label = f"{model.token_text(pair[0])!r} − {model.token_text(pair[1])!r}"
    return CustomTarget(label, 1.0, answer - foil)
