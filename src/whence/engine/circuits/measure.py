"""The number a circuit explains: one for each example, from the logits at its last token.

    pairs' own answers      logit[patch answer] - logit[clean answer]; without patch answers -logit[clean answer]
    any other target        what `whence.logit_difference`, `probability`, `metric` ... say

A larger number is more like the patch. Cost: that of the function. Knows nothing of sites.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.circuits.network import Network
from whence.errors import WhenceError
from whence.model.calls import Calls
from whence.model.linear import accumulation_dtype
from whence.model.model import Model
from whence.targets.pairs import Pairs
from whence.targets.resolve import MetricTargets, TokenTargets, resolve


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric: its name, and the function of the logits that it is."""

    name: str
    function: Callable[[Float[Tensor, "n vocab"], Int[Tensor, " n"]], Float[Tensor, " n"]]

    def of(self, logits: Float[Tensor, "n vocab"], example: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The metric of these logits, which belong to these examples of the whole set."""
        return self.function(logits, example)


def metric_of(
    network: Network, measure: Measure, calls: Calls, final: Float[Tensor, "n pos d_model"], example: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The metric of final streams, in the accumulation dtype.

    Args:
        network: reads the logits.
        measure: the metric.
        calls: of the batch.
        final: the stream that the final norm reads.
        example: the examples' numbers in the whole set.
    """
    logits = network.logits(calls, final)
    return measure.of(logits.to(accumulation_dtype(logits.dtype)), example)


def answers_measure(clean: Int[Tensor, " example"], patch: Int[Tensor, " example"] | None) -> Measure:
    """The pairs' own answers.

    Example:
        >>> answers_measure(torch.tensor([0]), torch.tensor([1])).of(torch.tensor([[2.0, 5.0]]), torch.tensor([0]))
        tensor([3.])
    """

    def function(logits: Tensor, example: Tensor) -> Tensor:
        line = torch.arange(len(logits), device=logits.device)
        right = logits[line, clean.to(logits.device)[example]]
        return -right if patch is None else logits[line, patch.to(logits.device)[example]] - right

    name = "-logit[clean answer]" if patch is None else "logit[patch answer] - logit[clean answer]"
    return Measure(name, function)


def measure_of(model: Model, metric: Any, pairs: Pairs | None, examples: int) -> Measure:
    """The metric that is meant.

    Args:
        model: resolves tokens.
        metric: None for the pairs' own answers; a token, `whence.logit_difference`, `probability`, `log_probability`,
            `kl_divergence`, `metric`, or a function of one position's logits.
        pairs: the pairs, if there are any.
        examples: number of prompts.

    Raises:
        ValueError: no metric and no answers, or several targets, or one that is not read from the logits.
    """
    if metric is None:
        if pairs is None:
            raise ValueError(
                "metric=None explains the pairs' own answers, and the prompts have none; give a metric such as "
                "whence.logit_difference(' are', ' is'), or Pairs"
            )
        patch = pairs.patch_answers
        for token in {*pairs.clean_answers, *(patch or ())}:
            model.token_id(token)  # names one that the model has no logit for
        return answers_measure(torch.tensor(pairs.clean_answers), None if patch is None else torch.tensor(patch))
    found = resolve(model, examples, 1, metric)
    if isinstance(found, MetricTargets) and len(found.functions) == 1:
        (function,), (name,) = found.functions, found.labels
        return Measure(name, lambda logits, _: function(logits[:, None])[:, 0])
    if isinstance(found, TokenTargets) and found.ids.shape[2] == 1:
        return _tokens(model, found, examples)
    raise ValueError(
        f"metric={metric!r} is not one number of the logits; give one token, a logit_difference, or a function of one "
        "position's logits"
    )


def _tokens(model: Model, found: TokenTargets, examples: int) -> Measure:
    """A logit, or the difference of two."""
    answers = found.ids[:, 0, 0].expand(examples)
    foils = None if found.foils is None else found.foils[:, 0, 0].expand(examples)

    def function(logits: Tensor, example: Tensor) -> Tensor:
        line = torch.arange(len(logits), device=logits.device)
        right = logits[line, answers.to(logits.device)[example]]
        return right if foils is None else right - logits[line, foils.to(logits.device)[example]]

    sides = [_named(model, side) for side in (answers, foils) if side is not None]
    return Measure(" - ".join(sides), function)


def _named(model: Model, tokens: Int[Tensor, " example"]) -> str:
    one = bool((tokens == tokens[0]).all())
    return f"logit[{model.token_text(int(tokens[0]))!r}]" if one else "logit[each prompt's own]"


def refuse_flat(effects: float, name: str) -> None:
    """Refuse a metric that is flat where it is asked about.

    Raises:
        WhenceError: no unit has an effect.
    """
    if effects == 0:
        raise WhenceError(
            f"no unit has an effect on {name}: its gradient is 0 at the clean run (a divergence from that very run "
            "is), or the baseline is the clean run itself; choose another metric or baseline"
        )
