"""What targets ask of a model: its logits' directions and its tokens' names. `whence.Model` answers all of it."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Readout(Protocol):
    """The end of a model, where numbers to explain are read: `vocab_size` directions in a stream `d_model` wide."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits, which can exceed the tokenizer's vocabulary."""
        ...

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the directions are."""
        ...

    def unembedding(self, ids: Int[Tensor, " k"]) -> Float[Tensor, "k d_model"]:
        """The fp32 direction of each token's logit: what it multiplies after the final norm."""
        ...

    def token_id(self, token: str | int) -> int:
        """The id of one token, given as its text or checked as an id."""
        ...

    def token_text(self, id: int) -> str:
        """The text of a token, its leading space included."""
        ...
