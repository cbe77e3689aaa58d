"""What a dataset run sums, and over which part of the data, with everything refused that cannot be meant.

Cost: none. It knows neither model nor data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Literal

from whence.engine.dataset.weighing import Weighting
from whence.engine.dataset.wired import Options
from whence.results.dataset_axes import METRICS

Norms = Literal["frozen", "live"]
_WHOLE = ("batch_size", "sequence_length", "fold")


@dataclass(frozen=True)
class DatasetSettings:
    """What is summed over which part of the data; two stores add up only where all of it is equal.

    Args:
        metrics: Of attr, attr_abs, mean_squared_attr.
        norms: "frozen" holds every norm at its scale, so that sources sum to their target; "live" does not.
        weighting: Which side of an edge counts by its importance: "none", "source", "target" or "both".
        min_importance: Importances up to this count as 0 on the weighted sides; from 0, below 1.
        batches: How many batches; None: the whole data.
        batch_size: Rows in a batch.
        sequence_length: Tokens in a row.
        seed: Of the order of the rows; None for the data's own.
        output_tokens: Token ids whose logits are targets of every metric.
        compat: "spd-413" runs without deltas and squares as goodfire-ai/spd's pull request 413 does, for comparison.
        fold: Batches in a window.
        pack: Whether rows hold documents one after the other, cut.
        standard_errors: Keep what standard errors and split-half stability need: 24 bytes a number and metric, not 8.
        stop_at: Stop a shard once the split halves agree on so large a share of each target's ten strongest sources;
            they are compared after every fourth window.

    Raises:
        TypeError: A setting of another type; names it.
        ValueError: A setting that cannot be, or that would do nothing; names it and what it may be.
    """

    metrics: tuple[str, ...] = METRICS
    norms: Norms = "frozen"
    weighting: Weighting = "none"
    min_importance: float = 0.0
    batches: int | None = None
    batch_size: int = 32
    sequence_length: int = 512
    seed: int | None = 0
    output_tokens: tuple[int, ...] = ()
    compat: Literal["spd-413"] | None = None
    fold: int = 8
    pack: bool = True
    standard_errors: bool = True
    stop_at: float | None = None

    def __post_init__(self) -> None:
        self._check_types()
        odd = [metric for metric in self.metrics if metric not in METRICS]
        if odd or not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics={self.metrics!r}; give one or more of {', '.join(METRICS)}, each once")
        _one_of("norms", self.norms, ("frozen", "live"))
        _one_of("weighting", self.weighting, ("none", "source", "target", "both"))
        _one_of("compat", self.compat, (None, "spd-413"))
        for name in _WHOLE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it is 1 or more")
        if self.batches is not None and self.batches < 1:
            raise ValueError(f"batches={self.batches}; it is 1 or more, or None for the whole data")
        self._check_importance()
        self._check_stopping()
        if self.compat and (self.norms, self.weighting) != ("live", "both"):
            raise ValueError(f"compat={self.compat!r} is for norms='live' and weighting='both', which that code does")

    def _check_types(self) -> None:
        for name in _WHOLE:
            _typed(name, getattr(self, name), int, "a whole number")
        for name in ("batches", "seed"):
            _typed(name, getattr(self, name), int | None, "a whole number or None")
        for name in ("pack", "standard_errors"):
            _typed(name, getattr(self, name), bool, "True or False")
        _typed("min_importance", self.min_importance, int | float, "a number")
        _typed("stop_at", self.stop_at, int | float | None, "a number or None")
        _typed("metrics", self.metrics, tuple, "a tuple of words")
        _typed("output_tokens", self.output_tokens, tuple, "a tuple of token ids")
        for token in self.output_tokens:
            _typed("output_tokens", token, int, "a tuple of token ids")

    def _check_importance(self) -> None:
        least = self.min_importance
        if not 0 <= least < 1:
            raise ValueError(f"min_importance={least}; importances lie in [0, 1], so it is 0 or more and below 1")
        if least and self.weighting == "none":
            raise ValueError(
                f"min_importance={least} with weighting='none' would do nothing, as no side counts by its importance; "
                "choose a weighting, or leave it at 0"
            )

    def _check_stopping(self) -> None:
        halves = self.standard_errors and "attr" in self.metrics
        if self.stop_at is not None and not (0 < self.stop_at <= 1 and halves):
            raise ValueError(
                f"stop_at={self.stop_at}; it is a share above 0 and up to 1, and needs standard_errors=True and the "
                "metric attr"
            )

    @property
    def options(self) -> Options:
        """What the engine is told."""
        return Options(
            self.metrics, self.norms == "live", self.weighting, self.min_importance, self.compat == "spd-413"
        )


def _one_of(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}; it is one of {', '.join(map(repr, known))}")


def _typed(name: str, value: object, wanted: type | UnionType, what: str) -> None:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError(f"{name}={value!r}; it is {what}")
