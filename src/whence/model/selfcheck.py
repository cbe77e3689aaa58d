"""Does the model do what its family's entry claims? Run on a few tokens whenever a model is loaded.

  stream    embeddings + every writer's addition = the input of the final norm
  logit     a direction pulled back through the frozen final norm, dotted with the stream, = the logit (scale and cap
            included)
  future    no attention pattern puts weight on a later or a padded token
  reach     pattern times values = what the output map of attention read (source tokens add up to heads)
  kernel    eager attention, which tells its patterns, gives the logits of the kernel that the model uses
  frozen    with patterns, norm scales and MLPs held, the forward pass is the plain one ...
  affine    ... and f(x + h) + f(x - h) = 2 f(x) for a large step h: what is held is really constant

Each line is a relative error with a bound set by the dtype of the forward pass.
Cost: two forward passes of 2 x 6 tokens, six more where graphs are claimed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whence.errors import UnsupportedModelError
from whence.model.attention import AttentionTape, future_weight, reach, tapped
from whence.model.batch import Batch
from whence.model.freeze import frozen
from whence.model.hooks import Before, first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.linear import constant_of, rows_of
from whence.model.norms import probe_norm
from whence.model.recorder import record, run
from whence.model.trace import Trace, Wanted, Write

# Rounding of the residual additions and of the logits; float64 models still take their RMSNorms in float32.
BOUND = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Check:
    """One line of the self-check."""

    name: str
    claim: str
    error: float  # relative
    bound: float
    where: str = ""  # the module where it first fails, or is worst

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return self.error <= self.bound


class SelfCheckError(UnsupportedModelError):
    """A model that does not do what its family's entry claims.

    Args:
        sentence: the first failed line, with what to do.
        checks: every line, passed or not.
    """

    def __init__(self, sentence: str, checks: list[Check]) -> None:
        super().__init__(sentence)
        self.checks = checks


@torch.no_grad()
def self_check(layout: Layout, vocab_size: int) -> list[Check]:
    """Every line that the model's entry makes testable."""
    batch = few_tokens(layout, vocab_size)
    bound = BOUND.get(_dtype(layout), BOUND[torch.float32])
    with_attention = layout.architecture.patterns is not None and bool(layout.attention)
    wanted = Wanted(attention=with_attention, streams=frozenset(range(len(layout.blocks))))
    trace = record(layout, batch, batch.rows(None), wanted=wanted)
    real = batch.mask
    error, where = _stream_error(layout, trace, real, bound)
    checks = [
        Check("stream", "the writers add up to the stream", error, bound, where),
        Check("logit", "a pulled-back direction gives the logit", _logit_error(layout, trace, real), bound, "its head"),
    ]
    if with_attention:
        taps = [write for write in trace.writes if write.attention is not None]
        weight, where = max((_forbidden_weight(write, real), _path(layout, write.writer.layer)) for write in taps)
        checks.append(Check("future", "no weight on later or padded tokens", weight, 0.0, where))
        error, where = max((_reach_error(write, real), _path(layout, write.writer.layer)) for write in taps)
        checks.append(Check("reach", "patterns times values give the heads", error, bound, where))
    if layout.architecture.frozen:
        checks += _frozen_checks(layout, batch, real, bound)
    return checks


def refuse_unless_passed(layout: Layout, checks: list[Check]) -> None:
    """Raise the first failed line as an error.

    Raises:
        SelfCheckError: naming the model, the claim, the value and what to do.
    """
    for check in checks:
        if not check.passed:
            # Some releases drop an attention softcap in every kernel but eager.
            hint = ", or its attention kernel: try attn_implementation='eager'" if check.name == "kernel" else ""
            at = f" at {check.where}" if check.where else ""
            raise SelfCheckError(
                f"{type(layout.hf).__name__} ({layout.hf.config.model_type}) failed its self-check {check.name!r}{at}: "
                f"{check.claim}, but the relative error is {check.error:.1e} (bound {check.bound:.0e}). The model "
                "differs from its family's entry in whence.model.architectures (remote code, an edited forward or an "
                f"unknown multiplier?){hint}; see docs/adding-a-model.md.",
                checks,
            )


def few_tokens(layout: Layout, vocab_size: int) -> Batch:
    """Two prompts of 6 and 4 tokens spread over the vocabulary, so that a lost mask shows."""
    device = layout.embedding.weight.device  # pyright: ignore[reportAttributeAccessIssue]
    device = device if isinstance(device, torch.device) and device.type != "meta" else torch.device("cpu")
    ids = (torch.arange(12).reshape(2, 6) * 7919 + 5) % vocab_size
    return Batch(ids.to(device), torch.tensor([6, 4], device=device))


def _dtype(layout: Layout) -> torch.dtype:
    return layout.hf.dtype


def _relative(error: Tensor, reference: Tensor, real: Tensor) -> float:
    """Largest ratio of norms over real positions."""
    ratio = error.double().norm(dim=-1) / reference.double().norm(dim=-1).clamp_min(1e-30)
    return float(ratio[real.to(ratio.device)].max())


def _path(layout: Layout, layer: int) -> str:
    return f"{layout.architecture.blocks}.{layer}"


def _stream_error(layout: Layout, trace: Trace, real: Tensor, bound: float) -> tuple[float, str]:
    """The largest error of the running sum, after each block and before the final norm, and where it first counts."""
    total = trace.embedding.double() + (0 if trace.position is None else trace.position.double())
    places: list[tuple[float, str]] = []
    for layer in range(len(layout.blocks)):
        for write in trace.writes:
            total = total if write.writer.layer != layer else total + write.added(torch.float64).to(total.device)
        stream = trace.streams[layer].double().to(total.device)
        places.append((_relative(total - stream, stream, real), _path(layout, layer)))
    stream = trace.final.input.double().to(total.device)
    places.append((_relative(total - stream, stream, real), layout.architecture.final_norm))
    return next((place for place in places if not place[0] <= bound), max(places))


def _logit_error(layout: Layout, trace: Trace, real: Tensor) -> float:
    norm = probe_norm(layout.final_norm, trace.final.input.shape[-1])
    x = trace.final.input.to(norm.gain)
    vocab = trace.logits.shape[-1]
    tokens = torch.arange(0, vocab, max(1, vocab // 64))
    directions = rows_of(layout.head, tokens, x.shape[-1], vocab).to(x)
    scale = norm.inverse_scale(trace.final.input, trace.final.output)[..., None]
    constant = norm.constant(directions)
    bias = constant_of(layout.head, x.shape[-1], x)
    constant = constant if bias is None else constant + bias[tokens.to(bias.device)]
    logits = layout.logit_scale * ((x @ norm.pull(directions).T) * scale + constant)
    if layout.softcap:
        logits = layout.softcap * torch.tanh(logits / layout.softcap)
    reference = trace.logits[..., tokens.to(trace.logits.device)].to(logits)
    return _relative(logits - reference, reference, real)


def _forbidden_weight(write: Write, real: Tensor) -> float:
    assert write.attention is not None
    pattern = write.attention.pattern
    queries, keys = real[:, None, :, None].to(pattern.device), ~real[:, None, None, :].to(pattern.device)
    return max(future_weight(pattern * queries), float((pattern * queries * keys).abs().max()))


def _reach_error(write: Write, real: Tensor) -> float:
    assert write.attention is not None
    assert isinstance(write.input, Tensor)
    z = reach(write.attention).flatten(2)
    if z.shape != write.input.shape:
        return float("inf")
    return _relative(z - write.input, write.input, real)


@torch.no_grad()
def _frozen_checks(layout: Layout, batch: Batch, real: Tensor, bound: float) -> list[Check]:
    """The raw logits f at x, x + h and x - h, h being at least as large as the stream itself."""
    own, stream = _raw_logits(layout, batch, None)
    how = layout.architecture.patterns
    assert how is not None
    with tapped(layout.hf, tuple(w.module for w in layout.attention), how, AttentionTape("record")):
        plain, _ = _raw_logits(layout, batch, None)
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(stream.shape, generator=generator).to(stream) * stream.float().std().to(stream)
    with frozen(layout):
        held, _ = _raw_logits(layout, batch, None)
        up, _ = _raw_logits(layout, batch, step)
        # An affine map bends nowhere, so a step may be as large as it takes to be seen beside the logits' own rounding.
        step = step * (held.float().norm() / (up - held).float().norm().clamp_min(1e-30)).clamp(1, 1e4).to(step)
        up, _ = _raw_logits(layout, batch, step)
        down, _ = _raw_logits(layout, batch, -step)
    moved = (up - held).double().norm(dim=-1).clamp_min(1e-30)
    bend = (up.double() + down.double() - 2 * held.double()).norm(dim=-1) / moved
    # In 16 bits two kernels may route a token to different experts, which says nothing about the model's entry.
    exact = own.dtype in (torch.float32, torch.float64)
    kernel = [Check("kernel", "eager attention agrees with the model's own", _relative(own - plain, own, real), bound)]
    return [
        *(kernel if exact else []),
        Check(
            "frozen",
            "holding norms and patterns leaves the forward pass alone",
            _relative(held - plain, plain, real),
            bound,
        ),
        Check(
            "affine",
            "held norms and patterns stay constant under a step",
            float(bend[real.to(bend.device)].max()),
            bound,
        ),
    ]


def _raw_logits(layout: Layout, batch: Batch, step: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output embedding's own output (no cap, no scale), and the stream before the first block."""
    seen: dict[str, Tensor] = {}

    def move(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen["stream"] = first_tensor(args, kwargs)
        return None if step is None else replace_first(args, kwargs, seen["stream"] + step)

    before: list[tuple[Any, Before]] = [(layout.blocks[0], move)]
    with hooked([(layout.head, lambda _, __, output: seen.update(raw=output))], before):
        run(layout, batch)
    return seen["raw"], seen["stream"]


def lines(checks: list[Check]) -> Iterator[str]:
    """The self-check as text, a line each."""
    for check in checks:
        verdict = "ok  " if check.passed else "FAIL"
        yield f"{verdict} {check.name:7s} {check.error:8.1e} of {check.bound:.0e}  {check.claim}"
