"""Importances that a trained network says, of one of the kinds in `kinds.py`.

    c = clamp(sigmoid(network(inputs of the matrices)), 0, 1)

Cost: that of the network. Computed in the network's own precision. Knows nothing of how it was trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.components.importance.kinds import KINDS
from whence.components.importance.sigmoids import SIGMOIDS, importance_of


@dataclass(frozen=True, eq=False)
class Network:
    """A network that says how much each component matters at each token.

    Args:
        kind: "mlp", "vector_mlp", "shared_mlp", "global_mlp", "global_transformer" or "global_reverse_residual".
        counts: Components of each site, in the order in which the network takes the sites.
        tensors: Its weights, named as its kind says (`whence.components.importance.kinds`).
        sigmoid: "leaky_hard", "hard", "upper_leaky_hard", "normal" or "swish_hard".
        reads: V of the sites whose input it takes through V, as component activations.
        settings: What else its kind asks for: `blocks`, `heads` and `rope_base`; `groups`.

    Raises:
        ValueError: A kind or a sigmoid that is not known.

    Example:
        >>> one = Network("shared_mlp", {"0.attn.q": 2}, {"0.attn.q.0.W": torch.eye(2), "0.attn.q.0.b": torch.zeros(2)})
        >>> one({"0.attn.q": torch.tensor([[[0.5, -1.0]]])}, torch.tensor([0]))["0.attn.q"]
        tensor([[[0.5000, 0.0000]]])
    """

    kind: str
    counts: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    sigmoid: str = "leaky_hard"
    reads: Mapping[str, Float[Tensor, "_ _"]] = field(default_factory=dict[str, Tensor])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no kind of importance network is called {self.kind!r}; known are {', '.join(KINDS)}")
        if self.sigmoid not in SIGMOIDS:
            raise ValueError(f"no sigmoid is called {self.sigmoid!r}; known are {', '.join(SIGMOIDS)}")

    def __call__(self, inputs: Mapping[str, Tensor], rows: Int[Tensor, " example"]) -> dict[str, Tensor]:
        """Importances by site, [example, pos, component]."""
        read = {site: self._read(site, inputs[site]) for site in self.counts}
        said = KINDS[self.kind](read, self.tensors, self.counts, self.settings)
        return {site: importance_of(one, self.sigmoid) for site, one in said.items()}

    def _read(self, site: str, given: Tensor) -> Tensor:
        V, weights = self.reads.get(site), next(iter(self.tensors.values()))
        if V is None:
            return given.to(weights)
        return given.to(V) @ V if given.is_floating_point() else V[given]  # a token's activations are a row of V

    def to(self, device: torch.device | str) -> "Network":
        """The same network on a device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved, reads={site: V.to(device) for site, V in self.reads.items()})

    def said(self) -> dict[str, Any]:
        """All but the tensors, in JSON's types."""
        counts, settings = [[site, count] for site, count in self.counts.items()], dict(self.settings)
        return {"counts": counts, "sigmoid": self.sigmoid, "reads": list(self.reads), "settings": settings}
