"""The direct effects of every part of a model on a number read linearly from the stream: one forward pass, one ledger.

value = u . N(x) + constant (+ nonlinear), N a norm held at its scale and x the sum of what was written before it, so

    value = sum_parts v . write(part) + bias_N . u + constant (+ nonlinear),      v = C(gamma * u) / sigma.

Where u is known before the forward pass each write is scored as it happens and let go; else the asked rows of what
writers read are kept until u is known. Cost: see ledger.py. The sum is not checked here; the job that asks does that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whence.engine.functional import Functional, from_known, from_logits, known_before, own_logits
from whence.engine.ledger import Ledger
from whence.engine.plan import CONSTANTS, Plan, Request, make_plan
from whence.engine.reading import preactivation, stream_after
from whence.engine.strongest import Strongest
from whence.engine.table import Table, make_table
from whence.engine.value_bias import value_biases
from whence.model.model import Model
from whence.model.norms import NormMap, probe_norm
from whence.model.recorder import record
from whence.model.trace import Around, Trace, Wanted, Write
from whence.results.keys import Node
from whence.results.runs import Run
from whence.targets.resolve import DirectionTargets, TokenTargets


@dataclass(frozen=True, eq=False)
class Effects:
    """A filled ledger, rows last, and the number it explains.

    Args:
        own: the model's own number at the last asked row of each prompt, where `functional` did not get it from the
            logits.
    """

    runs: tuple[Run, ...]
    scores: Float[Tensor, "example asked target row"]
    functional: Functional
    trace: Trace
    own: Float[Tensor, "example one target"] | None = None


@torch.inference_mode(False)  # a caller's inference mode would keep metrics from being differentiated
@torch.no_grad()
def direct_effects(model: Model, request: Request) -> Effects:
    """Every part's direct effect on the number that was asked for."""
    plan = make_plan(model, request)
    vectors = known_before(model, request.resolved)
    # Which units are strongest over several rows depends on the rows' scales, which come last.
    may_stream = request.top is None or (request.rows.numel() == 1 and "feature" not in request.by)
    may_stream = may_stream and not plan.features.norms  # which are heard of when all is over
    return _streamed(plan, vectors) if vectors is not None and may_stream else _kept(plan)


# ------------------------------------------------------------ the two ways through
def _streamed(plan: Plan, vectors: Float[Tensor, "_ _ target d_model"]) -> Effects:
    """Score writes as they happen. Logits are computed at one row a prompt only."""
    resolved = plan.request.resolved
    assert isinstance(resolved, TokenTargets | DirectionTargets)
    norm = probe_norm(plan.model.layout.final_norm, plan.model.d_model)
    strongest = Strongest(plan.request.top) if plan.request.top is not None else None
    stored = make_table(_without_units(plan.table)) if strongest else plan.table
    ledger = _ledger(plan, stored, norm.pull(vectors), None, strongest)
    trace = _record(plan, lambda write: _score(plan, ledger, write, {}), keep=plan.request.rows[:, -1:])
    functional = from_known(plan.model, resolved, vectors, trace)
    _score_stream(plan, ledger, trace)
    inverse = norm.inverse_scale(trace.final.input, trace.final.output).to(ledger.scores)
    ledger.scores[..., : stored.rows_before(CONSTANTS)] *= inverse[..., None, None]
    _score_constants(plan, ledger, functional, norm)
    own = own_logits(resolved, trace) if isinstance(resolved, TokenTargets) else None
    effects = Effects(stored.runs, ledger.scores, functional, trace, own)
    return effects if strongest is None else _with_strongest(effects, ledger.scores, strongest, inverse)


def _kept(plan: Plan) -> Effects:
    """Keep the asked rows of what writers read, and score them once the direction is known."""
    by_logits = plan.reading.unit is None
    every_row = by_logits and known_before(plan.model, plan.request.resolved) is None
    trace = _record(plan, None, keep=plan.request.rows if every_row else plan.request.rows[:, -1:])
    functional = _from_trace(plan, trace) if by_logits else preactivation(plan.model, plan.reading, trace)
    norm, inverse = _norm_and_scale(plan, trace)
    # A row that is not there must not lend strength to the units it would have had.
    inverse = inverse.masked_fill(plan.request.rows.to(inverse.device) < 0, 0)
    # A cross-layer feature's score is complete only after the last layer, so features are thinned out at the end.
    early = plan.request.top is not None and "feature" not in plan.request.by
    strongest = Strongest(plan.request.top) if early and plan.request.top is not None else None
    stored = make_table(_without_units(plan.table)) if strongest else plan.table
    covector = functional.vectors if norm is None else norm.pull(functional.vectors)
    ledger = _ledger(plan, stored, covector, inverse, strongest)
    for write in trace.writes:
        _score(plan, ledger, write, trace.around)
    _score_stream(plan, ledger, trace)
    _score_constants(plan, ledger, functional, norm)
    resolved = plan.request.resolved
    own = own_logits(resolved, trace) if isinstance(resolved, TokenTargets) else None
    effects = Effects(stored.runs, ledger.scores, functional, trace, own)
    if strongest is not None:
        return _with_strongest(effects, ledger.scores, strongest)
    return effects if plan.request.top is None else _thinned(plan, effects, plan.request.top)


def _from_trace(plan: Plan, trace: Trace) -> Functional:
    vectors, resolved = known_before(plan.model, plan.request.resolved), plan.request.resolved
    if vectors is None or not isinstance(resolved, TokenTargets | DirectionTargets):
        return from_logits(plan.model, resolved, trace)
    return from_known(plan.model, resolved, vectors, trace)


def _norm_and_scale(plan: Plan, trace: Trace) -> tuple[NormMap | None, Float[Tensor, "example asked"]]:
    norm = plan.reading.norm
    if norm is None:
        return None, torch.ones_like(plan.request.rows, dtype=plan.model.accumulation)
    around: Around = trace.final if plan.reading.unit is None else trace.around[norm]
    probed = probe_norm(norm, plan.model.d_model)
    inverse = probed.inverse_scale(around.input, around.output)
    return probed.without_gain() if plan.reading.before_gain else probed, inverse


def _record(plan: Plan, on_write: Callable[[Write], None] | None, keep: Tensor) -> Trace:
    streams = {layer for layer in (plan.features.stream, plan.reading.stream) if layer is not None and layer >= 0}
    wanted = Wanted(
        attention="source_token" in plan.request.by,
        sublayers=plan.features.read_sublayers,
        streams=frozenset(streams),
        around=plan.reading.modules | plan.features.norms,
    )
    request = plan.request
    return record(plan.model.layout, request.batch, request.rows, keep=keep, wanted=wanted, on_write=on_write)


# ------------------------------------------------------------ filling the ledger
def _ledger(
    plan: Plan, table: Table, covector: Tensor, inverse: Tensor | None = None, strongest: Strongest | None = None
) -> Ledger:
    rows, targets = plan.request.rows, covector.shape[2]
    scores = torch.zeros(*rows.shape, targets, table.size, dtype=plan.model.accumulation, device=plan.model.device)
    biases = value_biases(plan.model.layout) if plan.request.fold_value_bias else None
    return Ledger(plan.table, covector, scores, biases, inverse, strongest, stored=table)


def _score(plan: Plan, ledger: Ledger, write: Write, around: dict[nn.Module, Around]) -> None:
    if write.writer not in plan.writers:
        return
    if write.writer.key in plan.features.at_writers:
        plan.features.add_write(ledger, write, around)
    else:
        ledger.add_write(write)


def _score_stream(plan: Plan, ledger: Ledger, trace: Trace) -> None:
    """Embeddings, or the residual SAE that stands for them."""
    if plan.features.in_stream is not None:
        plan.features.add_stream(ledger, stream_after(trace, plan.features.stream))
        return
    ledger.add_vector("embed", trace.embedding)
    if trace.position is not None:
        ledger.add_vector("pos_embed", trace.position)


def _score_constants(plan: Plan, ledger: Ledger, functional: Functional, norm: NormMap | None) -> None:
    shape = ledger.scores.shape[:3]
    bias = None if norm is None else norm.constant(functional.vectors).expand(shape)
    constant = functional.constant.expand(shape)
    if plan.reading.unit is not None:  # one row holds the bias of the norm and of the unit
        constant, bias = constant if bias is None else constant + bias, None
    if bias is not None and "norm_bias" in plan.table.slots:
        ledger.put_constant("norm_bias", bias)
    if "constant" in plan.table.slots:
        ledger.put_constant("constant", constant)
    if functional.nonlinear is not None:
        ledger.put_constant("nonlinear", functional.nonlinear)


# ------------------------------------------------------------ the strongest alone
def _without_units(table: Table) -> dict[str, Run]:
    return {name: slot.run for name, slot in table.slots.items() if slot.run.units is None}


def _with_strongest(
    effects: Effects, others: Tensor, strongest: Strongest, inverse: Float[Tensor, "example asked"] | None = None
) -> Effects:
    """The other rows, the strongest units, and the sum of the rest; 1 / sigma applied if it has not been."""
    if not strongest.candidates:  # nothing before the place that is read has such units
        return replace(effects, scores=others)
    runs, scores, rest = strongest.result()
    units = torch.cat([scores, rest[..., None]], dim=-1).to(others)
    units = units if inverse is None else units * inverse[..., None, None]
    everything = torch.cat([others, units], dim=-1)
    return replace(effects, runs=(*effects.runs, *runs, Run(Node("rest"))), scores=everything)


def _thinned(plan: Plan, effects: Effects, top: int) -> Effects:
    strongest, others = Strongest(top), list[Tensor]()
    for slot in plan.table.slots.values():
        scores = effects.scores[..., slot.rows]
        if slot.run.units is None:
            others.append(scores)
        else:
            strongest.take(slot.run, scores)
    runs = tuple(_without_units(plan.table).values())
    return _with_strongest(replace(effects, runs=runs), torch.cat(others, -1), strongest)
