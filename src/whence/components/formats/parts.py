"""One layer's tensors as a format gives them, on the way to a dictionary. Knows nothing of files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.activation import Activation
from whence.components.dictionaries import SAE, Transcoder
from whence.components.lazy import LazyRows, Matrix, chunks
from whence.components.sites import INPUTS, OUTPUTS, SITES, ReadSite
from whence.errors import FileFormatError


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows first, as whence keeps them; `skip` as in x @ skip.T."""

    W_enc: Matrix
    b_enc: Float[Tensor, " feature"]
    W_dec: Matrix
    b_dec: Float[Tensor, " d_model"]
    activation: Activation
    skip: Float[Tensor, "d_model d_model"] | None = None

    def reading_less(self, shift: Float[Tensor, " d_model"]) -> "Parts":
        """The same encoder for one that is given x less a constant: W (x - s) + b = W x + (b - W s)."""
        moved = torch.cat([rows @ shift.to(rows) for _, rows in chunks(self.W_enc)])
        return replace(self, b_enc=self.b_enc - moved.to(self.b_enc))

    def scaled(self, factor: Float[Tensor, " feature"]) -> "Parts":
        """Pre-activations larger by a factor, which thresholds are compared with, and what they write less by it."""
        return replace(
            self,
            W_enc=scale_rows(self.W_enc, factor),
            b_enc=self.b_enc * factor,
            W_dec=scale_rows(self.W_dec, 1 / factor),
        )

    def placed(self, layer: int, reads: ReadSite, writes: ReadSite) -> SAE | Transcoder:
        """The dictionary at these sites: an SAE where it rebuilds what it reads.

        Raises:
            FileFormatError: Sites that belong to neither kind.
        """
        if reads == writes and reads in SITES and self.skip is None:
            return SAE(layer, self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.activation, reads)
        if reads not in INPUTS or writes not in OUTPUTS:
            raise FileFormatError(
                f"a dictionary from {reads} to {writes} is no transcoder, which goes from {', '.join(INPUTS)} to "
                f"{', '.join(OUTPUTS)}, and no SAE, which rebuilds what it reads."
            )
        return Transcoder(
            layer, self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.activation, self.skip, reads, writes
        )


def skips(given: Sequence[Tensor | None]) -> tuple[Tensor, ...] | None:
    """A skip for each layer: a layer without one passes nothing on where others have one. None if no layer has one."""
    known = next((skip for skip in given if skip is not None), None)
    if known is None:
        return None
    return tuple(torch.zeros_like(known) if skip is None else skip for skip in given)


def scale_rows(matrix: Matrix, factor: Float[Tensor, " row"]) -> Matrix:
    """Each row times its factor; of a file, when it is read."""
    if isinstance(matrix, LazyRows):
        return replace(matrix, scale=factor if matrix.scale is None else matrix.scale * factor)
    return matrix * factor[:, None].to(matrix)


def lengths(matrix: Matrix) -> Float[Tensor, " row"]:
    """The norm of each row."""
    return torch.cat([rows.norm(dim=-1) for _, rows in chunks(matrix)])
