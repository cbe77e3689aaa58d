"""What a request for direct effects comes to: where the number is read, which writes count, which rows the ledger has.

Nothing runs here; everything that can be refused is refused here. Rows stand in the order of writing, constants last.
"""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from whence.components.dictionaries import Dictionary
from whence.engine.features import Features
from whence.engine.granularity import Granularity
from whence.engine.placing import place_features
from whence.engine.reading import Reading, reading_of
from whence.engine.table import Table, make_table, writer_runs
from whence.model.batch import Batch
from whence.model.layout import Writer
from whence.model.linear import may_have_constant
from whence.model.model import Model
from whence.results.keys import Node
from whence.results.runs import Run
from whence.targets.resolve import DirectionTargets, MetricTargets, Resolved

CONSTANTS = ("norm_bias", "constant", "nonlinear")


@dataclass(frozen=True, eq=False)
class Request:
    """What is wanted of a model."""

    batch: Batch
    rows: Int[Tensor, "example asked"]
    resolved: Resolved
    by: frozenset[Granularity]
    dictionaries: tuple[Dictionary, ...] = ()
    fold_value_bias: bool = False
    top: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What follows from a request before anything runs.

    Args:
        reading: where the number is read.
        features: the dictionaries in their places.
        writers: those whose writes count: before the reading, and not inside a residual dictionary.
        table: the rows of the ledger, those of constants last.
    """

    model: Model
    request: Request
    reading: Reading
    features: Features
    writers: frozenset[Writer]
    table: Table


def make_plan(model: Model, request: Request) -> Plan:
    """The plan of a request.

    Raises:
        ValueError, NotImplementedError: a unit, dictionary or place that the model does not have.
    """
    layout = model.layout
    reading = reading_of(layout, request.resolved, request.dictionaries)
    features = place_features(layout, request.dictionaries if "feature" in request.by else (), model.d_model)
    if features.start > reading.place:
        raise ValueError(
            f"the dictionary at {_site(features)} stands for a later stream than {reading.site}, where the target is "
            "read; pass a dictionary of an earlier layer"
        )
    writers = frozenset(w for w in layout.writers if features.start <= (w.layer, w.stage) < reading.place)
    runs: dict[str, Run] = features.stream_runs()
    if features.in_stream is None:
        runs["embed"] = Run(Node("embed"))
        if layout.position is not None:
            runs["pos_embed"] = Run(Node("pos_embed"))
    asked = request.rows.unique().tolist()
    query = asked[0] if len(asked) == 1 else None
    for writer in layout.writers:
        if writer in writers:
            runs |= features.runs(writer) or writer_runs(
                writer, request.by, request.batch.ids.shape[1], query, folded=request.fold_value_bias
            )
    return Plan(model, request, reading, features, writers, make_table(runs | _constant_runs(model, request, reading)))


def _site(features: Features) -> str:
    return "no site" if features.in_stream is None else f"{features.in_stream.layer}.{features.in_stream.site}"


def _constant_runs(model: Model, request: Request, reading: Reading) -> dict[str, Run]:
    if reading.unit is not None:
        layer, _, site = reading.site.partition(".")
        return {"constant": Run(Node(f"{site}.bias", int(layer)))}
    runs: dict[str, Run] = {}
    if any(name == "bias" for name, _ in model.layout.final_norm.named_parameters()):
        runs["norm_bias"] = Run(Node("final_norm.bias"))
    if not isinstance(request.resolved, DirectionTargets) and may_have_constant(model.layout.head):
        runs["constant"] = Run(Node("output.bias"))
    if isinstance(request.resolved, MetricTargets):
        runs["nonlinear"] = Run(Node("nonlinear"))
    return runs
