"""A transcoder: features that stand for one MLP, reading what it reads and writing what it writes.

    write = activation(x W_encᵀ + b_enc) W_dec + b_dec + x W_skipᵀ

See `sites.py` for where x is read and where the write lands. Cost: `one_layer.py`'s, and a product with W_skip.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whence.components.one_layer import OneLayer, check_shape
from whence.components.sites import INPUTS, OUTPUTS, DictionaryKind, TranscoderInput, TranscoderOutput
from whence.results.keys import Node


@dataclass(frozen=True, eq=False)
class Transcoder(OneLayer):
    """A stand-in for one MLP: features that read its input and write its output.

    Args:
        layer: The block whose MLP it stands for.
        W_enc: [feature, d_model], the direction each feature reads; a tensor or `LazyRows`.
        b_enc: One number a feature.
        W_dec: [feature, d_model], the direction each feature writes.
        b_dec: What is written whatever the features say.
        activation: The nonlinearity.
        W_skip: A linear map from input to output beside the features, as `x @ W_skip.T`.
        reads: "mlp_in", "mlp_in_normalized" or "resid_mid".
        writes: "mlp_out" or "mlp_out_normed".

    Raises:
        ValueError: Shapes that do not go together, or an unknown site.

    Example:
        >>> import torch
        >>> from whence.components.activation import Activation
        >>> identity = torch.eye(3)
        >>> tiny = Transcoder(0, identity, torch.zeros(3), identity, torch.ones(3), Activation("relu"))
        >>> tiny.decode(tiny.encode(torch.tensor([2.0, -1.0, 0.0])))
        tensor([3., 1., 1.])
    """

    W_skip: Float[Tensor, "_ _"] | None = None
    reads: TranscoderInput = "mlp_in"
    writes: TranscoderOutput = "mlp_out"

    kind: ClassVar[DictionaryKind] = "transcoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(f"the transcoder of layer {self.layer}", self.reads, self.writes)
        if self.W_skip is not None:
            width = self.W_enc.shape[1]
            check_shape(f"the transcoder of layer {self.layer}", "W_skip", self.W_skip.shape, (width, width))

    def skip_of(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """The linear map from input to output beside the features."""
        return self.W_skip

    def node(self, feature: int) -> Node:
        """The key of one feature: `2.mlp.feature:7`."""
        return Node("mlp.feature", self.layer, feature)


def check_sites(what: str, reads: str, writes: str) -> None:
    """Refuse a site that no transcoder reads or writes."""
    if reads not in INPUTS:
        raise ValueError(f"{what} reads {reads!r}; transcoders read {', '.join(INPUTS)}.")
    if writes not in OUTPUTS:
        raise ValueError(f"{what} writes {writes!r}; transcoders write {', '.join(OUTPUTS)}.")
