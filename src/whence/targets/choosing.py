"""From what a user gave to labels, weights and directions: the four ways of naming targets, one function each.

Cost: k rows of the unembedding, and for the most likely tokens one top-k over the vocabulary.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.keys import LogitTarget
from whence.targets.checks import check_distinct, read_targets
from whence.targets.custom import check_custom
from whence.targets.readout import Readout


class Chosen(NamedTuple):
    """Targets ready to use, and how a line of log calls them and the sum of their weights."""

    targets: tuple[LogitTarget, ...]
    weights: Float[Tensor, " target"]
    vectors: Float[Tensor, "target d_model"]
    what: str
    total: str


def choose(
    given: object,
    model: Readout,
    probabilities: Float[Tensor, " vocab"],
    max_n_logits: int,
    desired_logit_prob: float,
) -> Chosen:
    """The targets that `given` stands for; the arguments are those of `AttributionTargets`, already checked."""
    if given is None:
        ids = salient_ids(probabilities, max_n_logits, desired_logit_prob)
        return _tokens(ids, model, probabilities, "salient logits")
    kind, elements = read_targets(given)
    if kind == "directions":
        return _directions(elements, model)
    ids = [model.token_id(token) for token in elements]
    check_distinct(ids, [model.token_text(id) for id in ids])
    return _tokens(ids, model, probabilities, "token ids" if kind == "ids" else "tokens")


def salient_ids(probabilities: Float[Tensor, " vocab"], max_n_logits: int, desired_logit_prob: float) -> list[int]:
    """The fewest most likely tokens that together reach a probability, but at most `max_n_logits`, likeliest first.

    Example:
        >>> salient_ids(torch.tensor([0.1, 0.6, 0.3]), 10, 0.85)
        [1, 2]
    """
    top = probabilities.topk(min(max_n_logits, len(probabilities)))
    # Summed in fp64 on the CPU: fp32 rounding must not decide how many are needed, and not every device has fp64.
    short = top.values.cpu().double().cumsum(0) < desired_logit_prob
    return top.indices[: int(short.sum()) + 1].tolist()


def _tokens(ids: list[int], model: Readout, probabilities: Float[Tensor, " vocab"], what: str) -> Chosen:
    rows = torch.tensor(ids, device=model.device)
    targets = tuple(LogitTarget(model.token_text(id), id) for id in ids)
    return Chosen(
        targets, probabilities.to(model.device)[rows], model.unembedding(rows), what, "cumulative probability"
    )


def _directions(elements: list[tuple[object, ...]], model: Readout) -> Chosen:
    custom = [check_custom(target, model, f"attribution_targets[{i}]") for i, target in enumerate(elements)]
    targets = tuple(LogitTarget(target.token_str, model.vocab_size + i) for i, target in enumerate(custom))
    weights = torch.tensor([target.prob for target in custom], dtype=torch.float32, device=model.device)
    vectors = torch.stack([target.vec for target in custom])
    return Chosen(targets, weights, vectors, "custom directions", "total weight")
