"""The logit lens: what the model would say if it stopped after each layer.

At each layer the final norm and the output embedding, cap and scale included, read the stream as it stands there, the
norm's scale recomputed: logits_l = head(N(x_l)). Running sums of direct attribution keep the final scale instead, and
so answer another question. Source: nostalgebraist 2020, "interpreting GPT: the logit lens".

Cost: one forward pass, then one output embedding per layer over the asked rows. Not a ledger: nothing adds up here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whence.model.batch import Position
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Wanted


@dataclass(frozen=True, eq=False, repr=False)
class LogitLens:
    """Logits read at every layer; NaN at positions that a shorter prompt does not have.

    Args:
        logits: of every layer; layer 0 is the stream before the first block, the last one the model's own output.
        tokens: of each prompt, as text.
        positions: asked for, of each prompt.
    """

    logits: Float[Tensor, "layer example asked vocab"]
    tokens: tuple[tuple[str, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    model: Model

    def __repr__(self) -> str:
        """One line: how many layers, prompts and positions."""
        layers, examples, asked, vocab = self.logits.shape
        return f"LogitLens({layers - 1} layers and the start × {examples} prompts × {asked} positions, {vocab} logits)"

    def top(self, k: int = 5) -> list[list[list[list[tuple[str, float]]]]]:
        """The k most likely tokens and their probabilities, [layer][example][asked]."""
        best = self.logits.softmax(-1).topk(k)

        def row(ids: Any, values: Any) -> Any:
            if isinstance(ids[0], int):
                return [(self.model.token_text(token), value) for token, value in zip(ids, values, strict=True)]
            return [row(*pair) for pair in zip(ids, values, strict=True)]

        return row(best.indices.tolist(), best.values.tolist())

    def rank(self, token: str | int) -> Int[Tensor, "layer example asked"]:
        """How many tokens have a larger logit than this one: 0 where it is the most likely."""
        chosen = self.logits[..., self.model.token_id(token), None]
        return (self.logits > chosen).sum(-1)


@torch.no_grad()
def logit_lens(model: Model, input: Any, *, position: Position = -1) -> LogitLens:
    """The logits that each layer's stream would give, at the positions asked for.

    Args:
        model: the model.
        input: prompts, in any form `direct_logit_attribution` takes.
        position: one position, several, or None for all; negative ones count from each prompt's end.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> whence.logit_lens(model, PROMPT).logits.shape
        torch.Size([5, 1, 1, 716])
    """
    batch, layout = model.batch(input), model.layout
    rows = batch.rows(position)
    trace = record(layout, batch, rows, wanted=Wanted(writes=False, streams=frozenset(range(model.n_layers - 1))))
    start = trace.embedding if trace.position is None else trace.embedding + trace.position
    streams = [start, *(trace.streams[layer] for layer in range(model.n_layers - 1))]
    logits = [_read(model, stream) for stream in streams]
    ids = [row[: int(length)] for row, length in zip(batch.ids.tolist(), batch.lengths, strict=True)]
    stacked = torch.stack([*logits, trace.logits.to(logits[0])])
    return LogitLens(
        stacked.masked_fill((rows < 0)[..., None].to(stacked.device), torch.nan),
        tuple(tuple(model.token_text(token) for token in row) for row in ids),
        tuple(tuple(row) for row in rows.tolist()),
        model,
    )


def _read(model: Model, stream: Float[Tensor, "example asked d_model"]) -> Float[Tensor, "example asked vocab"]:
    layout = model.layout
    logits = layout.logit_scale * layout.head(layout.final_norm(stream)).to(model.accumulation)
    return logits if layout.softcap is None else layout.softcap * torch.tanh(logits / layout.softcap)
