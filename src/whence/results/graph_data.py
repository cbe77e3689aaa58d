"""What a graph holds: nodes, weighted edges, targets and where they come from.

    weights[target, source] = what the source adds to the target's pre-activation (or logit), everything else held

Everything is plain data on the CPU. Cost: that of the edges. It knows nothing of influence, files or pictures.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from whence.results.certificate import Certificate
from whence.results.edged import Edged
from whence.results.keys import LogitTarget
from whence.results.kinds import of_kind
from whence.results.nodes import NodeTable
from whence.results.weights import Weights


@dataclass(frozen=True, eq=False, repr=False)
class GraphData(Edged):
    """The parts of a graph, which fit together; `Graph` says what each is.

    Raises:
        ValueError: Parts that do not belong together; names both sizes.

    Example:
        >>> graph.into("output:262@9")[0].weight  # doctest: +SKIP
        3.12
    """

    nodes: NodeTable
    weights: Weights
    logit_targets: tuple[LogitTarget, ...]
    logit_probabilities: Float[Tensor, " target"]
    vocab_size: int
    prompt: str
    input_tokens: Int[Tensor, " pos"]
    token_texts: tuple[str, ...]
    active_features: Int[Tensor, "active 3"]
    activation_values: Float[Tensor, " active"]
    selected_features: Int[Tensor, " selected"]
    certificate: Certificate = field(default_factory=Certificate)
    provenance: dict[str, Any] = field(default_factory=dict)
    shares: Float64[Tensor, " node"] | None = None
    counts: Weights | None = None

    def __post_init__(self) -> None:
        nodes = len(self.nodes)
        _check("weights", self.weights.shape, (nodes, nodes), "nodes × nodes")
        _check("logit_targets", len(self.logit_targets), len(self.nodes.of("output")), "one an output node")
        _check("logit_probabilities", len(self.logit_probabilities), len(self.logit_targets), "one a target")
        _check("token_texts", len(self.token_texts), len(self.input_tokens), "one an input token")
        features = int(of_kind(self.nodes, "feature").sum())
        _check("selected_features", len(self.selected_features), features, "one a feature node")

    @property
    def vocab_indices(self) -> list[int]:
        """The vocabulary index of each target, those past the vocabulary's end included."""
        return [target.vocab_idx for target in self.logit_targets]

    @property
    def has_virtual_indices(self) -> bool:
        """Whether a target is a direction rather than a token."""
        return any(index >= self.vocab_size for index in self.vocab_indices)

    @property
    def logit_token_ids(self) -> Int[Tensor, " target"]:
        """The token id of each target.

        Raises:
            ValueError: A target is no token; use `vocab_indices`.

        Example:
            >>> graph.logit_token_ids  # doctest: +SKIP
            tensor([262])
        """
        virtual = [target.token_str for target in self.logit_targets if target.vocab_idx >= self.vocab_size]
        if virtual:
            raise ValueError(
                f"targets {virtual} are directions, not tokens of the {self.vocab_size} in the vocabulary, so they "
                "have no token id. Use vocab_indices or logit_targets."
            )
        return torch.tensor(self.vocab_indices)

    @property
    def logit_tokens(self) -> Int[Tensor, " target"]:
        """The former name of `logit_token_ids`."""
        warnings.warn("Graph.logit_tokens is now logit_token_ids", DeprecationWarning, stacklevel=2)
        return self.logit_token_ids


AnyGraph = TypeVar("AnyGraph", bound=GraphData)  # what a graph is made from, its kind is


def _check(name: str, size: object, wanted: object, rule: str) -> None:
    if size != wanted:
        raise ValueError(f"{name} has {size}, and {wanted} is called for: {rule}.")
