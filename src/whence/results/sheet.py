"""What a picture of scores shows, whatever draws it: the terminal, a notebook or a plot.

Examples and positions are averaged, and the caption says so; up to four targets stand side by side. The remainder's
size relative to Σ|parts| is the worst of those averaged, because in a mean one could hide another.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, log10

from torch import Tensor

from whence.results.keys import Node
from whence.results.scores import REST, Scores

MAX_TARGETS = 4
POSITIVE, NEGATIVE = "#3a87c8", "#d9661f"  # blue and orange: told apart in every common kind of colour blindness
DEFAULT_ROWS = 15
_PROMPT_WIDTH = 64


@dataclass(frozen=True)
class Line:
    """One row: its key, the token it reads (or ""), its value for each column; `closing` for the `rest` of the rows."""

    key: str
    reads: str
    values: tuple[float, ...]
    closing: bool


@dataclass(frozen=True)
class Sheet:
    """The rows, one column a target; and the ledger below them, as (what, text for each column)."""

    title: str
    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    ledger: tuple[tuple[str, tuple[str, ...]], ...]
    share: str
    show: Callable[[float], str]

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value, zero included: what all bars share."""
        values = [value for row in self.lines for value in row.values]
        return min(0.0, *values), max(0.0, *values)

    def bar(self, line: Line, room: float) -> tuple[float, float, float]:
        """Where in `room` the first column's bar stands: its left end, its right end, and the axis both sides share."""
        low, high = self.span
        scale = room / (high - low) if high > low else 0.0
        left, right = sorted((0.0, line.values[0]))
        return (left - low) * scale, (right - low) * scale, -low * scale


def sheet(scores: Scores, k: int | None = None) -> Sheet:
    """What to show of scores.

    Args:
        scores: All of them.
        k: Rows before `rest`; None is 15, or every row when `top` has chosen them before.

    Example:
        >>> sheet(scores, 3).lines[0].key  # doctest: +SKIP
        '5.attn.head:6'
    """
    chosen = REST in scores.keys
    first = _first_targets(scores)
    mean = first.mean()
    rows = len(scores.keys) if chosen and k is None else DEFAULT_ROWS if k is None else k
    top = mean if scores.running else mean.top(rows)
    hidden = 0 if chosen else len(scores.keys) - len(top.keys) + 1
    values = [tuple(row) for row in _columns(scores, top.values)]
    number, remainder = (_columns(scores, numbers[None])[0] for numbers in (mean.target, mean.remainder))
    total = "the last sum" if scores.running else "Σ of the parts"
    show = number_format(max((abs(x) for row in [*values, number] for x in row), default=0.0))
    labels = tuple(quoted(label) for label in mean.target_labels[0])
    return Sheet(
        title="What wrote " + (labels[0] if len(labels) == 1 else f"{len(scores.target_labels[0])} targets"),
        caption=_caption(scores, mean),
        columns=labels,
        lines=tuple(_line(mean, node, row, hidden) for node, row in zip(top.keys, values, strict=True)),
        ledger=(
            (total, tuple(show(x - missing) for x, missing in zip(number, remainder, strict=True))),
            ("the model's number", tuple(map(show, number))),
            ("remainder", tuple(map(gap, remainder))),
        ),
        share=share(scores),
        show=show,
    )


def share(scores: Scores) -> str:
    """The largest |remainder| relative to Σ|parts|, as text."""
    relative = (scores.remainder.abs() / scores.magnitude).nan_to_num(0.0, posinf=float("inf"))
    return f"{'' if relative.numel() == 1 else 'at most '}{relative.max():.1e} of Σ|parts|"


def gap(remainder: float) -> str:
    """A remainder as text: signed, two figures, because only its size matters."""
    return _minus(f"{remainder:+.1e}")


def number_format(largest: float) -> Callable[[float], str]:
    """How to print numbers up to `largest`: signed, four figures of the largest, the same decimals in each."""
    if largest and not 1e-3 <= largest < 1e6:
        return lambda value: _minus(f"{value:+.3e}")
    decimals = 3 if not largest else min(6, max(0, 3 - floor(log10(largest))))
    return lambda value: _minus(f"{value:+.{decimals}f}")


def quoted(text: str) -> str:
    """Text as it can be shown anywhere: quoted and escaped where its ends or its characters would not be seen."""
    return text if text and text == text.strip() and text.isprintable() else repr(text)


def _minus(number: str) -> str:
    return number.replace("-", "−", 1) if number.startswith("-") else number


def _first_targets(scores: Scores) -> Scores:
    if "target" not in scores.axes:
        return scores
    labels = tuple(row[:MAX_TARGETS] for row in scores.target_labels)
    values, target = scores.values[..., :MAX_TARGETS], scores.target[..., :MAX_TARGETS]
    return replace(scores, values=values, target=target, target_labels=labels)


def _columns(scores: Scores, numbers: Tensor) -> list[list[float]]:
    """The mean over examples and positions: for each row, one number a target."""
    numbers = numbers.double()
    several = "target" in scores.axes
    return (numbers.flatten(1, -2).mean(1) if several else numbers.flatten(1).mean(1, keepdim=True)).tolist()


def _line(mean: Scores, node: Node, values: tuple[float, ...], hidden: int) -> Line:
    closing = node == REST
    key = f"rest ({hidden} {'others' if hidden > 1 else 'other'})" if closing and hidden else str(node)
    return Line(key, _reads(mean, node), values, closing)


def _reads(mean: Scores, node: Node) -> str:
    """The token an embedding stands for or a head reads, where all examples agree on it."""
    here = mean.positions[0][0] if len(mean.positions[0]) == 1 else None
    written = node.position if node.position is not None else here
    place = node.source if node.source is not None else written if node.name == "embed" else None
    return repr(mean.tokens[0][place]) if place is not None and place < len(mean.tokens[0]) else ""


def _caption(scores: Scores, mean: Scores) -> str:
    sizes = dict(zip(scores.axes, scores.values.shape, strict=True))
    examples = scores.provenance.get("mean_over_examples", sizes["example"])
    positions, targets = sizes.get("position", 1), sizes.get("target", 1)
    averaged = [f"{n} {name}" for n, name in ((examples, "examples"), (positions, "positions")) if n > 1]
    said = [f"mean over {' and '.join(averaged)}"] if averaged else []
    if targets > MAX_TARGETS:
        said.append(f"the first {MAX_TARGETS} of {targets} targets")
    if mean.positions[0] and positions == 1:
        said.append(f"at position {mean.positions[0][0]}")
    return ", ".join([*said, *_prompt(mean)])


def _prompt(mean: Scores) -> list[str]:
    """The prompt up to the last position asked for, its beginning cut away when long."""
    tokens = mean.tokens[0][: mean.positions[0][-1] + 1] if mean.positions[0] else mean.tokens[0]
    text = repr((" " if all(token.isdecimal() for token in tokens) else "").join(tokens))[1:-1].strip()
    return [f"“{text if len(text) <= _PROMPT_WIDTH else '…' + text[-_PROMPT_WIDTH:].lstrip()}”"] if text else []
