"""Direct logit attribution: which parts of the model wrote this logit?

With the final norm held at the scale it had, the logit is linear in the final stream, and the stream is a sum of
writes:

    logit = sum_parts v . write(part) + constants,      v = C(gamma * u) / sigma,

u the direction that reads the logit behind the norm, softcap and logit scale included. The parts sum to the model's own
number; every call checks that against the forward pass and keeps the gap as the remainder.
Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

Cost: one forward pass, without the output embedding where the tokens are known, and one read of each writer's weight
per direction. Knows nothing of indirect effects: what a part makes later parts write is on their account.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from whence.components.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from whence.engine.direct_effects import Effects, direct_effects
from whence.engine.granularity import Granularity, granularities, refuse_meaningless
from whence.engine.plan import Request
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.methods.provenance import provenance
from whence.methods.views import accumulate, by_layer, without_constants
from whence.model.batch import Position, positions_of
from whence.model.model import Model
from whence.results.scores import Keys, Scores
from whence.results.sums import sum_and_magnitude
from whence.targets.resolve import TokenTargets, resolve
from whence.targets.specs import ActivationTarget


def direct_logit_attribution(
    model: Model,
    input: Any,
    targets: Any = None,
    foils: Any = None,
    *,
    by: Granularity | Sequence[Granularity] = "component",
    dictionary: Any = None,
    position: Position = -1,
    accumulated: bool = False,
    centered: bool = False,
    bias: Literal["separate", "exclude"] = "separate",
    fold_value_bias: bool = False,
    top: int | None = None,
) -> Scores:
    """The direct effect of every part of the model on a logit, a logit difference or another number.

    Args:
        model: the model.
        input: a string, a list of strings (ragged is fine), token ids, or what a tokenizer returns.
        targets: what to explain. None: the most likely token. A string or id: that token. A list of them: several
            targets. A tensor: per prompt, [example]; [example, 2] for (answer, foil); [example, asked] for a token per
            position. Also `logit_difference`, `probability`, `log_probability`, `kl_divergence`, `metric`,
            `activation`, a function of one position's logits, and directions (`CustomTarget`, `AttributionTargets`).
        foils: tokens to subtract, in the same forms.
        by: how finely the model is told apart; several that split different parts go together, e.g. ("head", "neuron").
            "source_token" splits heads by what they read; "feature" uses `dictionary`.
        dictionary: one dictionary or several, whose features stand for the writes of their sites.
        position: one position, several, or None for all; negative ones count from each prompt's end.
        accumulated: running sums through the layers (by "component" or "layer"); the last row is the number itself.
        centered: explain the logit less the mean logit of the vocabulary.
        bias: "exclude" drops the rows of biases and constants and explains the number without them.
        fold_value_bias: count what value biases send through heads as bias rather than as the heads' own.
        top: keep only this many units (the strongest by mean size), the rest summed in one row.

    Returns:
        Scores whose rows sum to the target; `remainder` is what rounding left over.

    Raises:
        ValueError, TypeError: an argument that cannot be meant; the message says what could be.
        NotImplementedError: a granularity that the model does not have, naming the layer and what is available.
        LedgerError: the parts do not sum to the model's own number.

    Example:
        >>> import whence
        >>> from whence.demo import PROMPT, model_path
        >>> model = whence.Model.from_pretrained(model_path())
        >>> scores = whence.direct_logit_attribution(model, PROMPT, " Austin", by="head")
        >>> bool(scores.remainder.abs().max() < 1e-5 * scores.magnitude.max())
        True
    """
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not check types
        raise TypeError(f"model is {type(model).__name__}; wrap it first: whence.Model(model, tokenizer)")
    units, position = granularities(by), positions_of(position)
    _check(units, accumulated, bias, top)
    dictionaries = _dictionaries(units, dictionary, targets)
    refuse_meaningless(model.layout, units)
    batch = model.batch(input)
    rows = batch.rows(position)
    resolved = resolve(model, len(batch.ids), rows.shape[1], targets, foils, centered=centered)
    request = Request(batch, rows, resolved, units, dictionaries, fold_value_bias, top)
    effects = direct_effects(model, request)
    options = {
        "by": by if isinstance(by, str) else list(by),
        "position": position,
        "targets": _token_ids(effects.functional.tokens),
        "dictionaries": [_described(one) for one in dictionaries],
        "centered": centered,
        "bias": bias,
        "accumulated": accumulated,
        "fold_value_bias": fold_value_bias,
        "top": top,
        "frozen": {
            "norms": "the reader's" if isinstance(resolved, ActivationTarget) else "final",
            "attention": "as recorded",
        },
    }
    scores = _scores(model, request, effects, isinstance(position, int), options)
    if bias == "exclude":
        scores = without_constants(scores)
    if accumulated:
        return accumulate(scores, model.layout, per_layer="layer" in units)
    return by_layer(scores) if "layer" in units else scores


def _check(units: frozenset[Granularity], accumulated: bool, bias: str, top: int | None) -> None:
    if accumulated and not units & {"component", "layer"}:
        raise ValueError(
            f"accumulated=True is a running sum through the layers, for by='component' or 'layer', not {_said(units)}"
        )
    if bias not in ("separate", "exclude"):
        raise ValueError(f"bias={bias!r}; it is 'separate' or 'exclude'")
    if not isinstance(top, int | None) or isinstance(top, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"top={top!r}; it is a whole number of units to keep")
    if top is not None and (top < 1 or units & {"component", "layer"}):
        raise ValueError(
            f"top={top} with by={_said(units)}; top is at least 1 and thins out units (heads, neurons, features ...)"
        )


def _token_ids(tokens: TokenTargets | None) -> dict[str, Any] | None:
    """The ids explained, [example][asked][target], axes of 1 where nothing varies; None where they are no tokens."""
    if tokens is None:
        return None
    return {"ids": tokens.ids.tolist(), "foils": None if tokens.foils is None else tokens.foils.tolist()}


def _described(dictionary: Dictionary) -> str:
    where = "all layers" if isinstance(dictionary, CrossLayerTranscoder) else f"layer {dictionary.layer}"
    widths = sorted({dictionary.encoder_of(layer).n_features for layer in dictionary.layers})
    return f"{dictionary.kind} at {dictionary.writes}, {where}, {' or '.join(map(str, widths))} features"


def _said(units: frozenset[Granularity]) -> str:
    return " and ".join(repr(unit) for unit in sorted(units))


def _dictionaries(units: frozenset[Granularity], given: Any, targets: Any) -> tuple[Dictionary, ...]:
    wanted = "feature" in units or isinstance(targets, ActivationTarget)
    if given is None:
        if "feature" in units:
            raise ValueError("by='feature' needs dictionary=, e.g. whence.load_dictionary(folder)")
        return ()
    if not wanted:
        raise ValueError(f"dictionary= is for by='feature' or a feature as target, not by={_said(units)}")
    several: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    odd = [type(one).__name__ for one in several if not isinstance(one, Transcoder | SAE | CrossLayerTranscoder)]
    if odd:
        raise TypeError(
            f"dictionary= is or holds a {odd[0]}; it takes Transcoder, SAE and CrossLayerTranscoder objects, which "
            "whence.load_dictionary reads from a folder"
        )
    if not several:
        raise ValueError("dictionary= is empty; pass at least one dictionary")
    return several


def _scores(model: Model, request: Request, effects: Effects, single: bool, options: dict[str, Any]) -> Scores:
    """The ledger as a result, once it has been found to add up."""
    functional, batch, rows = effects.functional, request.batch, request.rows
    _check_logits(model, effects)
    tolerance = tolerance_of(model.dtype)
    values, target = effects.scores, functional.value
    missing = (rows < 0)[..., None].to(values.device)
    if missing.any():  # spares a pass over the table where every prompt is as long
        values, target = values.masked_fill_(missing[..., None], 0), target.masked_fill(missing, 0)
    values, target = values.cpu(), target.cpu()
    total, size = sum_and_magnitude(values, -1)
    refuse_gap((target.double() - total).abs(), size, tolerance)
    several = target.shape[2] > 1
    keep = [slice(None), 0 if single else slice(None), slice(None) if several else 0]
    ids = [row[: int(length)] for row, length in zip(batch.ids.tolist(), batch.lengths, strict=True)]
    return Scores(
        keys=Keys(effects.runs),
        values=values[tuple(keep)].movedim(-1, 0),
        target=target[tuple(keep)],
        axes=("node", "example", *(() if single else ("position",)), *(("target",) if several else ())),
        target_labels=functional.labels,
        tokens=tuple(tuple(model.token_text(token) for token in row) for row in ids),
        positions=tuple(tuple(row) for row in rows.tolist()),
        provenance=provenance(model, "direct_logit_attribution", tolerance=tolerance, **options),
    )


def _check_logits(model: Model, effects: Effects) -> None:
    """Compare with the model's own logits, where values were read off the final norm instead."""
    if effects.own is None:
        return
    value = effects.functional.value[:, -1:]
    scale = effects.trace.logits.abs().amax().double().clamp_min(1e-30)
    refuse_gap((effects.own.to(value) - value).abs().double(), scale.expand_as(value), tolerance_of(model.dtype))
