"""Output tokens as targets: counted exactly when they were named up front, made from the stream otherwise.

    y = s w · r      attr of y = Σ_coordinates s w_i · attr of r_i        Σ y² = s² w G wᵀ,   G = Σ r rᵀ

s the model's scale of logits, w an unembedding row, r the stream before the unembedding. Only `attr` is linear in the
target, so only `attr` can be made; its standard error cannot, for want of covariances between coordinates. Cost: one
block of the stream's coordinates for a token, one column for all of them. It knows no model: rows are handed in.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.results.dataset_axes import STREAM, Axis
from whence.results.dataset_cells import Cells, finished, part, some
from whence.results.dataset_normalise import divisor
from whence.results.dataset_opened import Opened, Unembedding
from whence.results.keys import Node

_TOKENS_AT_ONCE = 4096


def unembedding_of(
    matrix: Float[Tensor, "vocab d_model"] | None, model: Any, scale: float
) -> tuple[Unembedding | None, int]:
    """Where unembedding rows come from, and how many there are.

    Args:
        matrix: The unembedding, unscaled; read where it lies, row by row.
        model: A whence Model, used where there is no matrix.
        scale: By which the model multiplies logits.
    """
    if matrix is not None:
        return lambda ids: scale * matrix[ids].double(), len(matrix)
    if model is None:
        return None, 0
    return lambda ids: model.unembedding(ids).detach().cpu().double(), model.vocab_size


def is_made(opened: Opened, node: Node) -> bool:
    """Whether a node is an output token that was not counted, so that its row has to be made."""
    axis = opened.header.targets.get("output")
    stored = axis is not None and node.index in axis.ids.tolist()
    return node.name == "output" and STREAM in opened.header.targets and not stored


def check_made(opened: Opened, metric: str, normalise: str) -> None:
    """Refuse what cannot be made of coordinates.

    Raises:
        ValueError: Another metric than `attr`, a share, or no unembedding.
    """
    name_them = "Name the token in output_tokens= of whence.dataset_attributions"
    if metric != "attr":
        raise ValueError(f"{metric} of an output token is not made from the stream: it is not linear. {name_them}.")
    if normalise == "share":
        raise ValueError(
            f"an output token made from the stream has no Σ c|y|, so no share. {name_them}, or use 'token'."
        )
    if opened.unembedding is None:
        raise ValueError(
            "output tokens that were not named up front need the unembedding, which is not kept here. Open it with "
            "whence.DatasetAttributions.load(path, model=model), or unembedding=."
        )
    if normalise == "target_rms" and opened.store.extra("gram") is None:
        raise ValueError(f"normalise='target_rms' needs the second moments of the stream, not kept here. {name_them}.")


def check_token(opened: Opened, node: Node) -> None:
    """Refuse a token that the vocabulary has not.

    Raises:
        KeyError: It is beyond it.
    """
    if not isinstance(node.index, int) or node.index >= opened.vocabulary:
        raise KeyError(f"{node} does not exist: the unembedding has {opened.vocabulary} rows.")


def made_row(opened: Opened, id: int, source: str, normalise: str, column: int | None = None) -> Cells:
    """A token's `attr` row, or one number of it.

    Args:
        opened: The store, with unembedding.
        id: The token.
        source: Source site.
        normalise: What it is divided by.
        column: One column, or None for all.
    """
    return _made(opened, torch.tensor([id]), source, normalise, column)


def made_columns(opened: Opened, source: str, normalise: str, column: int) -> Iterator[tuple[int, Cells]]:
    """The `attr` of one source for every token, some at a time, each with its first token.

    Args:
        opened: The store, with unembedding.
        source: Source site.
        normalise: What they are divided by.
        column: Which source.
    """
    for start in range(0, opened.vocabulary, _TOKENS_AT_ONCE):
        ids = torch.arange(start, min(start + _TOKENS_AT_ONCE, opened.vocabulary))
        yield start, _made(opened, ids, source, normalise, column)


def _made(opened: Opened, ids: Int[Tensor, " token"], source: str, normalise: str, column: int | None) -> Cells:
    assert opened.unembedding is not None
    rows, gram, header = opened.unembedding(ids), opened.store.extra("gram"), opened.header
    total = rows @ part(opened.store, (STREAM, source), "attr", column=column)
    square = {} if gram is None else {"square": ((rows @ gram.double()) * rows).sum(1)}
    target = Axis("output", ids, opened.vocabulary, square)
    axis = some(header.sources[source], slice(None) if column is None else slice(column, column + 1))
    return finished(header, "attr", total, None, divisor("attr", normalise, header.tokens, target, axis))
