"""What followed from interventions, beside the run without them: plain tensors and the model to read them with.

change(target) = u . (x' - x), x the stream behind the final norm: a token's logit before any softcap, the number that
frozen effects are linear in. Metrics and probabilities are taken of the logits as they are.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.model.model import Model
from whence.targets.resolve import DirectionTargets, MetricTargets, MostLikely, TokenTargets, resolve


@dataclass(frozen=True, eq=False)
class Watched:
    """A node's value in both runs at every position, NaN behind the end of a shorter prompt; features' pre-activations.

    Of a feature it is what its dictionary encodes from the run, not what an intervention set it to.
    """

    clean: Float[Tensor, "example pos *value"]
    changed: Float[Tensor, "example pos *value"]
    clean_pre_activation: Float[Tensor, "example pos"] | None = None
    pre_activation: Float[Tensor, "example pos"] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """Logits with and without the interventions, one example for each list of them.

    Attributes:
        logits, clean_logits: at the positions asked for.
        final, clean_final: the stream behind the final norm there.
        rows: those positions, absolute.
        watched: by key, the nodes asked for.
    """

    logits: Float[Tensor, "example asked vocab"]
    clean_logits: Float[Tensor, "example asked vocab"]
    final: Float[Tensor, "example asked d_model"]
    clean_final: Float[Tensor, "example asked d_model"]
    rows: Int[Tensor, "example asked"]
    model: Model
    watched: dict[str, Watched] = field(default_factory=dict[str, Watched])

    @torch.no_grad()
    def change(self, targets: Any = None, foils: Any = None) -> Float[Tensor, "example asked target"]:
        """How far each target moved.

        Args:
            targets: tokens, directions, `AttributionTargets`, `whence.logit_difference(...)`, a metric, or None for
                the clean run's most likely token; as in `whence.direct_logit_attribution`.
            foils: tokens to subtract.

        Raises:
            ValueError: malformed targets.
            TypeError: another kind of target, such as an activation: pass that node as watch= to `intervene`.

        Example:
            >>> outcome.change(whence.logit_difference(" are", " is"))  # doctest: +SKIP
        """
        examples, asked = self.rows.shape
        resolved = resolve(self.model, examples, asked, targets, foils)
        moved = (self.final.to(self.model.accumulation) - self.clean_final.to(self.model.accumulation))[..., None, :]
        match resolved:
            case DirectionTargets(vectors=vectors):
                return (moved * vectors.to(moved)).sum(-1)
            case MetricTargets(functions=functions):
                after, before = self.logits.to(moved), self.clean_logits.to(moved)
                return torch.stack([function(after) - function(before) for function in functions], -1)
            case MostLikely():
                return (moved * self._vectors(self.clean_logits.argmax(-1)[..., None]).to(moved)).sum(-1)
            case TokenTargets(ids=ids, foils=others):
                vectors = self._vectors(ids)
                vectors = vectors if others is None else vectors - self._vectors(others)
                return (moved * vectors.to(moved)).sum(-1)
            case _:
                raise TypeError(f"{targets!r} is read inside the model; pass its node as watch= to intervene")

    def _vectors(self, ids: Tensor) -> Tensor:
        return self.model.unembedding(ids.flatten()).reshape(*ids.shape, -1)

    def __repr__(self) -> str:
        """How many examples and positions, and the largest change of a logit."""
        after, before = (logits[self.rows >= 0] for logits in (self.logits, self.clean_logits))
        largest = float(torch.where(after == before, 0, after - before).abs().max())  # NaN if any is
        return f"Outcome({self.rows.shape[0]} examples, {self.rows.shape[1]} positions, largest change {largest:.3g})"
