"""Numbers to explain, as a user writes them: named constructors for what a token, a list or a tensor cannot say.

  logit_difference(a, b)     logit[a] - logit[b]: linear, exact
  probability(a)             softmax(logits)[a]
  log_probability(a)         log softmax(logits)[a]
  kl_divergence(reference)   sum_v p_ref[v] (log p_ref[v] - log p[v])
  metric(function)           any differentiable function of one position's logits
  activation(key)            the pre-activation of a neuron or a feature: linear in the stream where it reads

The nonlinear ones are explained at first order, at the logits that were seen: their ledger has a row `nonlinear` with
what the first order leaves over, so that it still adds up to the number itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from whence.results.keys import Node
from whence.targets.readout import Readout

Tokens: TypeAlias = str | int | Sequence[str | int] | Tensor
Labelled: TypeAlias = tuple[str, Callable[[Float[Tensor, "example asked vocab"]], Float[Tensor, "example asked"]]]


@dataclass(frozen=True)
class LogitDifference:
    """logit[answer] - logit[foil]: one pair for every prompt, or lists of one pair per prompt."""

    answers: Any
    foils: Any


@dataclass(frozen=True)
class Probability:
    """Probability of a token, or its logarithm (nats)."""

    token: str | int
    log: bool

    def labelled(self, model: Readout) -> Labelled:
        """Its label, and the function of the logits that it is."""
        token, log = model.token_id(self.token), self.log
        text = repr(model.token_text(token))

        def function(logits: Tensor) -> Tensor:
            nats = logits.log_softmax(-1)[..., token]
            return nats if log else nats.exp()

        return f"{'log ' if log else ''}p({text})", function


@dataclass(frozen=True, eq=False)
class Divergence:
    """Kullback-Leibler divergence (nats) of the model's distribution from a reference."""

    reference: Float[Tensor, " vocab"]

    def labelled(self, model: Readout) -> Labelled:
        """Its label, and the function of the logits that it is."""
        if tuple(self.reference.shape) != (model.vocab_size,):
            raise ValueError(
                f"kl_divergence: reference logits have shape {tuple(self.reference.shape)}; the model's have "
                f"({model.vocab_size},)"
            )
        reference = self.reference.float().log_softmax(-1)

        def function(logits: Tensor) -> Tensor:
            nats = reference.to(logits)
            return (nats.exp() * (nats - logits.log_softmax(-1))).nan_to_num(0.0, posinf=torch.inf).sum(-1)

        return "KL(reference ‖ model)", function


@dataclass(frozen=True, eq=False)
class Metric:
    """A differentiable function of the logits at one position."""

    function: Callable[[Float[Tensor, " vocab"]], Float[Tensor, ""]]
    name: str

    def labelled(self, model: Readout) -> Labelled:
        """Its label, and the function applied position by position."""

        def function(logits: Tensor) -> Tensor:
            values: list[Any] = [self.function(row) for row in logits.flatten(0, 1)]
            wrong = next((v for v in values if not isinstance(v, Tensor) or v.ndim), None)
            if wrong is not None:
                raise ValueError(f"{self.name}: a metric returns a 0-d tensor for one position's logits, got {wrong!r}")
            return torch.stack(values).reshape(logits.shape[:2])

        return self.name, function


@dataclass(frozen=True)
class ActivationTarget:
    """The pre-activation of one neuron or feature."""

    node: Node


Nonlinear: TypeAlias = Probability | Divergence | Metric


def logit_difference(answer: Tokens, foil: Tokens) -> LogitDifference:
    """The target logit[answer] - logit[foil].

    Args:
        answer: a token (string or id), or a list or tensor of one per prompt.
        foil: likewise, of the same length.

    Raises:
        ValueError: lists of different lengths.

    Example:
        >>> logit_difference(" are", " is")
        LogitDifference(answers=' are', foils=' is')
    """
    lengths = [
        len(side) if isinstance(side, Sequence) and not isinstance(side, str) else None for side in (answer, foil)
    ]
    if lengths[0] != lengths[1]:
        answers, foils = (_counted(length, what) for length, what in zip(lengths, ("answer", "foil"), strict=True))
        raise ValueError(f"logit_difference: {answers} against {foils}; give one foil for each answer")
    if lengths[0] is not None and not lengths[0]:
        raise ValueError("logit_difference: empty lists; give one answer and one foil per prompt")
    return LogitDifference(answer, foil)


def _counted(length: int | None, what: str) -> str:
    if length is None:
        return f"a single {what}"
    return f"a list of {length} {what}{'' if length == 1 else 's'}"


def probability(token: str | int) -> Probability:
    """The target p(token), between 0 and 1; explained at first order with a `nonlinear` row."""
    return Probability(token, log=False)


def log_probability(token: str | int) -> Probability:
    """The target log p(token), in nats; explained at first order with a `nonlinear` row."""
    return Probability(token, log=True)


def kl_divergence(reference: Float[Tensor, " vocab"]) -> Divergence:
    """The target KL(reference ‖ model), in nats, of the distribution of these reference logits.

    Raises:
        ValueError: NaN or +inf among the reference logits, or none that is finite.
    """
    if not reference.amax().isfinite():  # NaN if any is
        raise ValueError("kl_divergence: the reference logits hold NaN or +inf, or no finite one")
    return Divergence(reference)


def metric(function: Callable[[Float[Tensor, " vocab"]], Float[Tensor, ""]], name: str | None = None) -> Metric:
    """A target of one's own: a differentiable function of the logits at one position, returning a 0-d tensor."""
    return Metric(function, name or getattr(function, "__name__", "metric"))


def activation(key: str | Node) -> ActivationTarget:
    """The target of a neuron's or feature's pre-activation, e.g. "3.mlp.neuron:17" (".gate" or ".up" if gated).

    Raises:
        ValueError: the key names something that has no pre-activation, or a position.
    """
    node = Node.parse(key) if isinstance(key, str) else key
    if node.name not in ("mlp.neuron", "mlp.feature") and not node.name.endswith(".feature"):
        raise ValueError(f"activation: {node} has no pre-activation; name a neuron (3.mlp.neuron:17) or a feature")
    if node.position is not None:
        raise ValueError(f"activation: {node} names a position; leave '@{node.position}' out and pass position=")
    return ActivationTarget(node)
