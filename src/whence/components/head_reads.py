"""Heads as targets: a head reads no one number, so what it reads is said by a covector on its query, key or value.

Nothing is computed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class HeadReads:
    """Heads as targets: what a covector makes of a head's query, key or value, before any rotation.

    Args:
        covectors: By key, such as "3.attn.head:1.q": a vector of the head's width.

    Raises:
        ValueError: A key that is no head's input, or one with a position.

    Example:
        >>> import torch
        >>> HeadReads({"1.attn.head:0.q": torch.ones(32)}).keys
        ('1.attn.head:0.q',)
    """

    covectors: Mapping[str, Float[Tensor, " d_head"]]

    def __post_init__(self) -> None:
        for node in map(Node.parse, self.covectors):
            if node.name != "attn.head" or node.end not in ("q", "k", "v") or node.position is not None:
                raise ValueError(f"HeadReads: {node} is no input of a head; name its end, such as '3.attn.head:1.q'")

    @property
    def keys(self) -> tuple[str, ...]:
        """The heads' inputs that are targets."""
        return tuple(self.covectors)

    def describe(self) -> dict[str, Any]:
        """For a result's settings."""
        return {"kind": "head_reads", "covectors": {key: one.tolist() for key, one in self.covectors.items()}}
