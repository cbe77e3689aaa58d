"""What a run asks of the machines that compute it, from its plan alone.

    memory  = 1.25 · (model + bytes of all blocks + 4 · elements of all blocks · (2 · metrics + 1) + batch) + 2 GB
    minutes = 10 + 1.5 · windows of a shard · seconds per window / 60

The blocks are a shard's float64 totals: 24 bytes for each element and metric where standard errors are kept. Beside
them lie the float32 sums of the current window, twice at its end, and the products of directions that they are
multiplied with. The batch is what its tokens read and write in all sites (`whence.engine.dataset.footprint`), large
where batches are. The quarter is for one block being written and for fragmentation, the 2 GB for the libraries, ten
minutes for loading. The seconds are the plan's rough count of operations. It does not know the machines.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whence.errors import FileFormatError

_WINDOW = 4  # bytes of a float32
_SIZES = ("windows", "block_elements", "block_bytes", "model_bytes", "batch_bytes")


@dataclass(frozen=True)
class Planned:
    """The sizes of a run.

    Args:
        windows: Windows of the whole run.
        block_elements: Elements of all blocks together, in one statistic.
        block_bytes: Bytes of all blocks together, in all statistics.
        metrics: How many metrics each block has.
        model_bytes: Of the model and the components.
        batch_bytes: Of what is kept of a batch while it is summed.
        seconds_per_window: What a window takes on one CPU core, roughly.
    """

    windows: int
    block_elements: int
    block_bytes: int
    metrics: int
    model_bytes: int
    batch_bytes: int
    seconds_per_window: float


def read_planned(run: str | Path) -> Planned:
    """The sizes of a run, from its `plan.json`.

    Args:
        run: The folder of the run.

    Raises:
        FileFormatError: There is no plan, or it lacks one of the sizes; names the file and what is missing.

    Example:
        >>> read_planned("runs/stories/da-20260131_235959")  # doctest: +SKIP
        Planned(windows=100, block_elements=64000000, block_bytes=4608000000, metrics=3, model_bytes=2000000000, ...)
    """
    file = Path(run) / "plan.json"
    try:
        return _planned(json.loads(file.read_bytes()))
    except FileNotFoundError as error:
        raise FileFormatError(f"{run} has no plan.json, so it is no run. `whence dataset plan` makes one.") from error
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{file} cannot be read: {error}. Plan the run again.") from error
    except KeyError as error:
        raise FileFormatError(f"{file} does not say {error}. Plan the run again.") from error


def resources(planned: Planned, shards: int) -> tuple[int, int]:
    """Memory in gigabytes and minutes to ask for, for each shard.

    Args:
        planned: The sizes of the run.
        shards: Into how many the run is cut.

    Example:
        >>> resources(Planned(100, 64_000_000, 4_608_000_000, 3, 2_000_000_000, 3_000_000_000, 12.5), shards=10)
        (17, 14)
    """
    window = _WINDOW * planned.block_elements * (2 * planned.metrics + 1)
    memory = 1.25 * (planned.model_bytes + planned.block_bytes + window + planned.batch_bytes) + 2e9
    seconds = math.ceil(planned.windows / shards) * planned.seconds_per_window
    return math.ceil(memory / 1e9), math.ceil(10 + 1.5 * seconds / 60)


def _planned(plan: Mapping[str, Any]) -> Planned:
    sizes = {name: int(plan[name]) for name in _SIZES}
    seconds = float(plan["seconds_per_window"])
    return Planned(**sizes, metrics=len(plan["settings"]["metrics"]), seconds_per_window=seconds)
