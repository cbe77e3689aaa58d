"""One attention score by pairs of sources: what wrote to the query's position times what wrote to the key's.

    q = sum_i Q J_i v_i + constants,    k = sum_j K J_j v_j + constants,    score = sum_ij scaling q_i . k_j

The rows of Q and K travel down the frozen stream like rows of a graph, d_head of them a side, so that every source is
projected to d_head before anything is paired. Each channel's row must sum to the model's own query or key.

Cost: engine.query_key's, and 2 d_head rows of a graph. Knows nothing of what the score does to the pattern.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.engine.linearize import Linearized
from whence.engine.query_key import QueryKey, Side, query_key
from whence.engine.recorded import Recorded
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.engine.transport import constant_rows, pull_rows
from whence.model.layout import Writer
from whence.model.model import Model
from whence.model.values import value_maps


@dataclass(frozen=True, eq=False)
class Projected:
    """What each source, by number, adds to a query or key; `bias` is one past the last source."""

    number: Int[Tensor, " source"]
    vectors: Float[Tensor, "source d_head"]


@dataclass(frozen=True, eq=False)
class Scores:
    """One score, its query and its key by sources."""

    whole: QueryKey
    query: Projected
    key: Projected


def score_parts(model: Model, linear: Linearized, writer: Writer, head: int, query: int, key: int) -> Scores:
    """What a score is made of.

    Args:
        model: the model.
        linear: the linearized prompt, up to the query at least, its run not yet forgotten.
        writer: the attention.
        head: which of its heads.
        query: position that looks.
        key: position looked at.

    Raises:
        LedgerError: sources that do not sum to the query or the key.
        ValueError, UnsupportedModelError: as `query_key`.
    """
    whole = query_key(model.layout, linear.run.batch, writer, head, query, key, linear.stream.final.inverse)
    sides = [
        _projected(model, linear, writer, side, position) for side, position in ((whole.query, query), (whole.key, key))
    ]
    return Scores(whole, sides[0], sides[1])


@torch.no_grad()
def _projected(model: Model, linear: Linearized, writer: Writer, side: Side, position: int) -> Projected:
    stream = linear.stream
    multiplier = value_maps(model.layout)[writer.layer].input_multiplier
    entry = Recorded(model, linear.run, stream.length).entry(writer, multiplier)
    here = [position] * len(side.rows)
    covector = entry.pull(side.rows, torch.tensor(here, device=side.rows.device))
    stage = stage_of(model, writer)
    rows = pull_rows(stream, stage, covector, here)
    constant = side.rows @ entry.bias.expand(stream.width) + side.constant
    constant = constant + constant_rows(stream, stage, covector, here)
    every = torch.cat([rows.values, constant[:, None]], 1)
    gap = (every.double().sum(1) - side.value.double()).abs()
    refuse_gap(gap, every.double().abs().sum(1), tolerance_of(model.dtype))
    number = torch.cat([rows.columns, torch.tensor([stream.nodes])])
    kept = (every != 0).any(0)
    kept[-1] = True
    return Projected(number[kept.cpu()], every[:, kept].T.contiguous())


def stage_of(model: Model, writer: Writer) -> int:
    """Which stage of the stream a sublayer reads at the foot of."""
    stages = sorted({(other.layer, other.stage) for other in model.layout.writers})
    return stages.index((writer.layer, writer.stage))
