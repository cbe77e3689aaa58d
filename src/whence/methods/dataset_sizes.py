"""How large the result of a dataset run will be, before anything is summed.

    numbers a statistic = Σ over pairs of sites, units of the target × units of the source
    bytes on disk       = numbers × statistics × 8        a shard holds as much, and as much in memory

With all metrics and standard errors that is 72 bytes a number: three metrics, each with its sum, the sum of the windows
with odd numbers, and the sum of squares over windows. Cost: wiring the run up, a few forward passes of a few tokens. It
knows no machine: a window's sums in float32 come on top, 4 bytes a number and metric.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from whence.engine.dataset.footprint import batch_bytes
from whence.engine.dataset.named import Given
from whence.engine.dataset.wiring import wire
from whence.methods.dataset_plan import DatasetPlan
from whence.model.model import Model

_BYTES = 8  # of a float64
# For each number of a statistic, token and metric: twice what the closed forms took where every unit counts (four
# layers, 256 components a matrix). With few active units it is less, with edges that are pulled it may be far more.
_SECONDS = 2e-9


def sizes_of(plan: DatasetPlan, model: Model, given: Given) -> dict[str, int]:
    """The sizes of a run, by name.

    `blocks`; `block_elements`, numbers a statistic; `block_bytes`; `model_bytes`, of the model and the components;
    `batch_bytes`, of what is kept of a batch while it is summed; `seconds_per_window`, roughly, on one CPU core.

    Args:
        plan: the run.
        model: its model.
        given: its components.

    Raises:
        ValueError: components that do not fit the model.
    """
    settings, rows = plan.settings, plan.rows
    tokens = torch.tensor(settings.output_tokens, dtype=torch.long)
    wired = wire(model, given, rows.seen, tokens, settings.options, rows.longest)
    elements = total = 0
    for target, source in wired.routes:
        reading = wired.readings[target]
        numbers = len(reading.ids) * len(wired.writings[source].ids)
        statistics = len(wired.metrics_of(reading)) * (3 if settings.standard_errors else 1)
        elements, total = elements + numbers, total + numbers * statistics * _BYTES
    return {
        "blocks": len(wired.routes),
        "block_elements": elements,
        "block_bytes": total,
        "model_bytes": sum(one.numel() * one.element_size() for one in (*model.hf.parameters(), *_tensors(given))),
        "batch_bytes": batch_bytes(wired, settings.batch_size, rows.longest),
        "seconds_per_window": math.ceil(_SECONDS * len(settings.metrics) * elements * plan.tokens / plan.windows),
    }


def _tensors(given: Given) -> Iterator[Tensor]:
    """What parameter components are made of; dictionaries may lie in files."""
    for part in given.parameters or ():
        yield from (part.V, part.U)
