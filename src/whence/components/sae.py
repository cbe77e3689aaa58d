"""A sparse autoencoder (SAE): features that read one site and rebuild it.

Formula and cost are `one_layer.py`'s. See `sites.py` for the sites.
"""

from dataclasses import dataclass
from typing import ClassVar

from whence.components.one_layer import OneLayer
from whence.components.sites import SITES, DictionaryKind, Site, place_name
from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class SAE(OneLayer):
    """A sparse autoencoder: features that read one site and rebuild it.

    Args:
        layer: The block; 0 for the embeddings.
        W_enc: [feature, d], the direction each feature reads; a tensor or `LazyRows`.
        b_enc: One number a feature.
        W_dec: [feature, d], the direction each feature writes.
        b_dec: What is written whatever the features say.
        activation: The nonlinearity.
        site: One of `whence.components.sites.SITES`.

    Raises:
        ValueError: Shapes that do not go together, or an unknown site.

    Example:
        >>> import torch
        >>> from whence.components.activation import Activation
        >>> identity = torch.eye(3)
        >>> tiny = SAE(1, identity, torch.zeros(3), identity, torch.zeros(3), Activation("relu"), "resid_post")
        >>> str(tiny.node(2))
        '1.resid_post.feature:2'
    """

    site: Site

    kind: ClassVar[DictionaryKind] = "sae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site not in SITES:
            raise ValueError(f"the SAE of layer {self.layer} has site {self.site!r}; known are {', '.join(SITES)}.")

    @property
    def reads(self) -> Site:
        return self.site

    @property
    def writes(self) -> Site:
        return self.site

    def node(self, feature: int) -> Node:
        """The key of one feature: `2.resid_post.feature:7`."""
        return Node(f"{place_name(self.site)}.feature", self.layer, feature)
