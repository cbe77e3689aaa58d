"""Fill a ledger: every write's score on the directions being explained, as the writes come in.

With v the target's direction pulled back to the final stream, up to 1 / sigma (a scalar of each row, applied when it is
known), a writer  s * PN(W a + b)  scores, with w = s * pull_PN(v),

    whole write   (W a + b) . w          unit i    a_i (W^T w)_i          bias   b . w + const_PN(s v)

so that per unit only a product with one vector W^T w is left: [units], never [units, d_model]. Heads sum their
channels; a head's source token k has A[q, k] (v_k . (W^T w)_head). Scores are written in place, rows last, [example,
asked, target, row].

Cost per writer and direction: one read of W, one multiply per unit and row. Knows nothing of what the directions mean.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whence.engine.functional import dot
from whence.engine.strongest import Strongest
from whence.engine.table import Table
from whence.model.attention import Attention, expand_groups
from whence.model.experts import bias_of, down_map, neurons
from whence.model.layout import Writer
from whence.model.linear import constant_of, pull_linear
from whence.model.norms import probe_norm
from whence.model.trace import Routed, Write

Covector = Float[Tensor, "_ _ target d_model"]  # axes of example and asked may be 1, where nothing varies


@dataclass(frozen=True, eq=False)
class Pulled:
    """A direction in front of a writer's last map: covector, what scales each row, and the post-norm's constant."""

    covector: Covector
    rows: Float[Tensor, "example asked one"] | None
    constant: Float[Tensor, "_ _ target"] | None

    def scale(self, scores: Float[Tensor, "example asked *rest"]) -> Float[Tensor, "example asked *rest"]:
        """Scores of covector alone, made those of the write."""
        return (
            scores if self.rows is None else scores * self.rows.reshape(*self.rows.shape[:2], *[1] * (scores.ndim - 2))
        )


def pull_writer(write: Write, covector: Covector) -> Pulled:
    """The stream's covector, back through multiplier, post-norm and shared expert's gate."""
    covector = write.writer.multiplier * covector
    rows = None if write.shared_gate is None else write.shared_gate.to(covector)
    constant = None
    if write.post_norm is not None and write.writer.post_norm is not None:
        norm = probe_norm(write.writer.post_norm, covector.shape[-1])
        scale = norm.inverse_scale(write.post_norm.input, write.post_norm.output)[..., None]
        rows = scale if rows is None else rows * scale
        constant = norm.constant(covector)
        covector = norm.pull(covector)
    return Pulled(covector, rows, constant)


@dataclass(frozen=True, eq=False)
class Ledger:
    """Scores being filled in.

    Args:
        table: its rows.
        covector: the direction in the final stream, up to 1 / sigma.
        scores: where they go, zero at first.
        value_bias: per attention layer, what to take out of heads and put with the bias; None leaves heads whole.
        inverse: 1 / sigma of each row where it is known already; None leaves it to be multiplied in at the end.
        strongest: takes the rows that are units instead of `scores`, keeping a few.
        stored: the rows that `scores` holds, where they are not the whole table.
    """

    table: Table
    covector: Covector
    scores: Float[Tensor, "example asked target row"]
    value_bias: dict[int, Float[Tensor, "head d_head"]] | None = None
    inverse: Float[Tensor, "example asked"] | None = None
    strongest: Strongest | None = None
    stored: Table | None = None

    def put(self, name: str, scores: Float[Tensor, "_ _ target *unit"], *, add: bool = False) -> None:
        """Write the scores of a slot (without a unit axis, of its one row), or add to them."""
        run = self.table.slots[name].run
        if self.inverse is not None:
            scores = scores * self.inverse.to(scores).reshape(*self.inverse.shape, *[1] * (scores.ndim - 2))
        if self.strongest is not None and run.units is not None:
            self.strongest.take(run, scores)
            return
        rows = self._rows(name)
        scores = (scores if scores.ndim == 4 else scores[..., None]).to(rows.device)
        rows.add_(scores) if add else rows.copy_(scores)

    def put_constant(self, name: str, scores: Float[Tensor, "example asked target"]) -> None:
        """Write a row that is no part of the stream, so no norm scales it."""
        self._rows(name).copy_(scores[..., None])

    def _rows(self, name: str) -> Tensor:
        return self.scores[..., (self.stored or self.table).slots[name].rows]

    def add_vector(self, name: str, x: Float[Tensor, "example asked d_model"]) -> None:
        """An embedding, or anything that stands in the stream as it is."""
        self.put(name, dot(x.to(self.covector), self.covector))

    def add_write(self, write: Write) -> None:
        """Score one write."""
        pulled = pull_writer(write, self.covector.to(write.output.device))
        bias = self._bias(write, pulled)
        slot = self.table.slots[write.writer.key]
        if slot.run.units is None:
            whole = pulled.scale(dot(write.output.to(pulled.covector), pulled.covector))
            bias = self._with_value_bias(write, pulled, bias)
            self.put(write.writer.key, whole if bias is None else whole - bias)
        elif isinstance(write.input, Routed):
            self.put(write.writer.key, self._experts(write, write.input, pulled))
        else:
            units, moved = self._units(write, write.input, pulled)
            self.put(write.writer.key, pulled.scale(units))
            bias = bias if moved is None or bias is None else bias + pulled.scale(moved)
        self._put_bias(write, pulled, bias)

    # ------------------------------------------------------------ constants
    def _bias(self, write: Write, pulled: Pulled) -> Tensor | None:
        """What the last map's bias scores; None where the table has no row for it."""
        if f"{write.writer.key}.bias" not in self.table.slots:
            return None
        if isinstance(write.input, Routed):
            return pulled.scale(self._expert_biases(write, write.input, pulled))
        constant = constant_of(write.writer.write, write.input.shape[-1], pulled.covector)
        shape = (*self.scores.shape[:2], 1)
        if constant is None:
            return pulled.covector.new_zeros(shape).expand(*self.scores.shape[:3])
        return pulled.scale((pulled.covector @ constant).expand(*self.scores.shape[:3]))

    def _put_bias(self, write: Write, pulled: Pulled, bias: Tensor | None) -> None:
        if bias is not None:
            self.put(f"{write.writer.key}.bias", bias if pulled.constant is None else bias + pulled.constant)

    # ------------------------------------------------------------ units
    def _units(self, write: Write, a: Tensor, pulled: Pulled) -> tuple[Tensor, Tensor | None]:
        """Scores of a linear map's units before the row scale, and what folding value biases moves to the bias."""
        writer = write.writer
        a = a.to(pulled.covector)
        back = pull_linear(writer.write, pulled.covector, a.shape[-1])
        run = self.table.slots[writer.key].run
        if writer.heads is None or run.node.name in ("mlp.neuron", "ssm.channel"):
            return a[:, :, None] * back, None
        back = back.unflatten(-1, (writer.heads, -1))
        constant = self._value_bias(writer)
        moved = None if constant is None else (back * constant.to(back)).sum(-1)
        if run.axis == "source" and write.attention is not None:
            return source_scores(write.attention, back, moved), None if moved is None else moved.sum(-1)
        heads = head_scores(a.unflatten(-1, (writer.heads, -1)), back)
        return (heads, None) if moved is None else (heads - moved, moved.sum(-1))

    def _value_bias(self, writer: Writer) -> Float[Tensor, "head d_head"] | None:
        return self.value_bias[writer.layer] if self.value_bias is not None and writer.name == "attn" else None

    def _with_value_bias(self, write: Write, pulled: Pulled, bias: Tensor | None) -> Tensor | None:
        """The bias of an undivided write, with what its value biases send through it."""
        constant = self._value_bias(write.writer)
        if constant is None or bias is None:
            return bias
        back = pull_linear(write.writer.write, pulled.covector, constant.numel())
        return bias + pulled.scale((back @ constant.to(back).flatten()).expand(*self.scores.shape[:3]))

    def _experts(self, write: Write, routed: Routed, pulled: Pulled) -> Tensor:
        """Scores of experts, or of their neurons, one chosen expert at a time."""
        experts = write.writer.write
        lines = pulled.covector.expand(*self.scores.shape[:2], -1, -1).flatten(0, 1)
        slot = self.table.slots[write.writer.key]
        width = slot.run.inner
        scores = lines.new_zeros(*lines.shape[:2], len(slot.run))
        for expert in routed.index.unique().tolist():
            line, choice = torch.where(routed.index == expert)
            if expert >= len(slot.run) // (width or 1):  # a mark for "no expert here"
                continue
            hidden = neurons(experts, expert, routed.input[line]).to(lines)
            part = hidden[:, None] * (lines[line] @ down_map(experts, expert, lines))
            part = part * routed.weight[line, choice].to(lines)[:, None, None]
            if width is None:
                scores[line, :, expert] += part.sum(-1)
            else:
                scores[line, :, expert * width : (expert + 1) * width] += part
        return pulled.scale(scores.unflatten(0, self.scores.shape[:2]))

    def _expert_biases(self, write: Write, routed: Routed, pulled: Pulled) -> Tensor:
        lines = pulled.covector.expand(*self.scores.shape[:2], -1, -1).flatten(0, 1)
        scores = lines.new_zeros(lines.shape[:2])
        for expert in routed.index.unique().tolist():
            line, choice = torch.where(routed.index == expert)
            constant = lines[line] @ bias_of(write.writer.write, expert, lines)
            scores.index_add_(0, line, constant * routed.weight[line, choice].to(lines)[:, None])
        return scores.unflatten(0, self.scores.shape[:2])


def head_scores(
    z: Float[Tensor, "example asked head d_head"], back: Float[Tensor, "_ _ target head d_head"]
) -> Float[Tensor, "example asked target head"]:
    """z_h . (W^T w)_h, the covector shared along axes of size 1."""
    if back.shape[0] == back.shape[1] == 1:
        return torch.einsum("eahc,thc->eath", z, back[0, 0])
    if back.shape[1] == 1:
        return torch.einsum("eahc,ethc->eath", z, back[:, 0])
    return torch.einsum("eahc,eathc->eath", z, back.expand(*z.shape[:2], *back.shape[2:]))


def source_scores(
    attention: Attention,
    back: Float[Tensor, "_ _ target head d_head"],
    folded: Float[Tensor, "_ _ target head"] | None = None,
) -> Float[Tensor, "example asked target unit"]:
    """A[q, k] (v_k . (W^T w)_h) for every head and source token, a head's source tokens side by side.

    `folded` is what the values' bias scores, (b_V . (W^T w)_h), where it is left out of them.
    """
    pattern = attention.pattern.to(back)
    value = expand_groups(attention.value, pattern.shape[1]).to(back)
    reads = torch.einsum("ehkc,eathc->eathk", value, back.expand(len(value), *back.shape[1:]))
    reads = reads if folded is None else reads - folded[..., None]
    return (pattern.transpose(1, 2)[:, :, None] * reads).flatten(-2)
