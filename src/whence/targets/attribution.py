"""The logits, or other directions of the final stream, that an attribution explains.

Each target is a direction u_t in the stream x after the final norm. u_t · x is a token's logit (before its bias and any
softcap) when u_t is that token's unembedding row, and whatever the user means by it when the direction is their own.
Its weight is the token's probability, softmax(logits) in fp32, or the weight given. Cost: one softmax and k rows of the
unembedding. Knows nothing of prompts, positions or how attribution is done.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.keys import LogitTarget
from whence.targets.checks import check_limits, check_logits
from whence.targets.choosing import choose
from whence.targets.custom import CustomTarget
from whence.targets.readout import Readout

if TYPE_CHECKING:
    TargetSpec = CustomTarget | tuple[str, float, Tensor]
    Given = Tensor | str | CustomTarget | Sequence[str] | Sequence[TargetSpec] | None
else:
    # Run-time checkers of annotations look at one element and do not say which; `checks.read_targets` does both.
    Given = object

logger = logging.getLogger(__name__)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class AttributionTargets:
    """k directions to explain, with their labels, weights and indices.

    A token's direction is its row of the unembedding as the model has it, not demeaned: the row explains the logit
    itself, not its distance from the vocabulary's average. A custom direction is used as given and has a virtual
    index, vocab_size + its place in the list.

    Attributes:
        logit_probabilities: probability of each token, or weight of each custom direction.
        logit_vectors: the directions, fp32.
        vocab_size: width of the logits; indices from here on are virtual.

    Example:
        >>> logits = model.logits("The capital of Texas is")[0]  # doctest: +SKIP
        >>> AttributionTargets([" Austin", " Dallas"], model=model, logits=logits)  # doctest: +SKIP
        AttributionTargets(2: ' Austin' 0.912, ' Dallas' 0.031)
    """

    logit_probabilities: Float[Tensor, " target"]
    logit_vectors: Float[Tensor, "target d_model"]
    vocab_size: int
    _targets: tuple[LogitTarget, ...]

    def __init__(
        self,
        attribution_targets: Given,
        *,
        model: Readout,
        logits: Float[Tensor, " vocab"],
        max_n_logits: int = 10,
        desired_logit_prob: float = 0.95,
    ) -> None:
        """Choose the targets and look up their directions; one line of log says what was chosen.

        Args:
            attribution_targets: None for the most likely tokens; a tensor of token ids; strings, each exactly one
                token (a bare string is one target); or custom directions (token_str, prob, vec).
            model: gives directions, token names and the device of the result.
            logits: the model's, at the position to explain; probabilities are their softmax.
            max_n_logits: with None, take at most this many tokens.
            desired_logit_prob: with None, take the fewest tokens that together have this probability, (0, 1].

        Raises:
            ValueError: no targets, one twice, a string that is not one token, an id out of range, a malformed custom
                direction, a limit that cannot be met, or logits that are not one finite number a token.
            TypeError: targets that are none of the four forms, or a mixture; the message names the element.
        """
        check_limits(max_n_logits, desired_logit_prob)
        probabilities = check_logits(logits, model.vocab_size).softmax(0)
        chosen = choose(attribution_targets, model, probabilities, max_n_logits, desired_logit_prob)
        self._set(chosen.targets, chosen.weights, chosen.vectors, model.vocab_size)
        total = chosen.weights.sum().item()
        logger.info("Attribution targets (%s): %d, %s %.4f", chosen.what, len(self), chosen.total, total)

    def _set(self, targets: tuple[LogitTarget, ...], weights: Tensor, vectors: Tensor, vocab_size: int) -> None:
        # The one place that fills a frozen instance.
        object.__setattr__(self, "_targets", targets)
        object.__setattr__(self, "logit_probabilities", weights)
        object.__setattr__(self, "logit_vectors", vectors)
        object.__setattr__(self, "vocab_size", vocab_size)

    @property
    def logit_targets(self) -> list[LogitTarget]:
        """Label and index of each target."""
        return list(self._targets)

    @property
    def tokens(self) -> list[str]:
        """Label of each target: a token's text, or a custom direction's name."""
        return [target.token_str for target in self._targets]

    @property
    def token_ids(self) -> list[int]:
        """Index of each target, virtual ones included."""
        return [target.vocab_idx for target in self._targets]

    @property
    def vocab_indices(self) -> Int[Tensor, " target"]:
        """Index of each target as a tensor, virtual ones included."""
        return torch.tensor(self.token_ids, device=self.logit_vectors.device)

    @property
    def has_virtual_indices(self) -> bool:
        """Whether any target is a custom direction."""
        return any(id >= self.vocab_size for id in self.token_ids)

    @property
    def logit_token_ids(self) -> Int[Tensor, " target"]:
        """Token id of each target.

        Raises:
            ValueError: some targets are custom directions, which no token has; `vocab_indices` has their indices.
        """
        virtual = [target for target in self._targets if target.vocab_idx >= self.vocab_size]
        if virtual:
            names = ", ".join(f"{target.token_str!r} ({target.vocab_idx})" for target in virtual)
            raise ValueError(f"these targets are directions, not tokens: {names}. Use vocab_indices.")
        return self.vocab_indices

    @property
    def logit_tokens(self) -> Int[Tensor, " target"]:
        """The old name of `logit_token_ids`; deprecated."""
        warnings.warn("logit_tokens is deprecated: use logit_token_ids.", DeprecationWarning, stacklevel=2)
        return self.logit_token_ids

    def to(self, device: torch.device | str) -> "AttributionTargets":
        """The same targets with their tensors on another device; this one is left as it is.

        Example:
            >>> targets.to("cpu")  # doctest: +SKIP
        """
        moved = object.__new__(type(self))
        moved._set(self._targets, self.logit_probabilities.to(device), self.logit_vectors.to(device), self.vocab_size)
        return moved

    def __len__(self) -> int:
        """Number of targets."""
        return len(self._targets)

    def __repr__(self) -> str:
        """The first three targets with their weights."""
        weights = self.logit_probabilities[:3].tolist()
        shown = [f"{label!r} {weight:.3f}" for label, weight in zip(self.tokens, weights, strict=False)]
        return f"AttributionTargets({len(self)}: {', '.join(shown)}{', …' if len(self) > 3 else ''})"
