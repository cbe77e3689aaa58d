"""What a dataset run is to do, settled once and written down: settings, prepared data, windows.

    OUT/da-YYYYMMDD_HHMMSS/plan.json                  settings, sizes, how workers find model and components again
    OUT/da-YYYYMMDD_HHMMSS/tokens/                    the data as rows of tokens
    OUT/da-YYYYMMDD_HHMMSS/unembedding.safetensors    for output tokens that were not named up front

Batch i is rows i b … i b + b − 1 in the order that the seed gives; `fold` batches are a window, the unit of work, so
that any number of shards sums the same windows. Cost: reading and tokenising the data once.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from whence.corpus.prepare import prepare
from whence.corpus.token_rows import TokenRows
from whence.engine.dataset.kernels import Options
from whence.engine.dataset.named import Given
from whence.engine.dataset.weighing import Weighting
from whence.errors import FileFormatError
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.dataset_axes import METRICS
from whence.results.dataset_runs import new_subrun
from whence.results.shard_progress import shard_name, shard_windows

PLAN, TOKENS, SHARDS, RESULT = "plan.json", "tokens", "shards", "result"
UNEMBEDDING = "unembedding.safetensors"
VERSION = 1
SIZES = ("blocks", "block_elements", "block_bytes", "model_bytes")
Norms = Literal["frozen", "live"]


@dataclass(frozen=True)
class DatasetSettings:
    """What is summed over which part of the data; two stores add up only where all of it is equal.

    Args:
        metrics: Of attr, attr_abs, mean_squared_attr.
        norms: "frozen" holds every norm at its scale, so that sources sum to their target; "live" does not.
        weighting: Which side of an edge counts by its importance: "none", "source", "target" or "both".
        min_importance: Importances up to this count as 0 on the weighted sides.
        batches: How many batches; None: the whole data.
        batch_size: Rows in a batch.
        sequence_length: Tokens in a row.
        seed: Of the order of the rows; None for the data's own.
        output_tokens: Token ids whose logits are targets of every metric.
        compat: "spd-413" runs without deltas and squares as goodfire-ai/spd's pull request 413 does, for comparison.
        fold: Batches in a window.
        pack: Whether rows hold documents one after the other, cut.
        standard_errors: Keep what standard errors and split-half stability need: two more numbers a number.
        stop_at: Stop a shard once the split halves agree on so large a share of each target's ten strongest sources.
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
        odd = [metric for metric in self.metrics if metric not in METRICS]
        if odd or not self.metrics:
            raise ValueError(f"metrics={self.metrics!r}; give one or more of {', '.join(METRICS)}")
        _one_of("norms", self.norms, ("frozen", "live"))
        _one_of("weighting", self.weighting, ("none", "source", "target", "both"))
        _one_of("compat", self.compat, (None, "spd-413"))
        for name in ("batch_size", "sequence_length", "fold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it is 1 or more")
        if self.batches is not None and self.batches < 1:
            raise ValueError(f"batches={self.batches}; it is 1 or more, or None for the whole data")
        if not 0 <= self.min_importance < 1:
            raise ValueError(f"min_importance={self.min_importance}; importances lie in [0, 1]")
        if self.stop_at is not None and not (0 < self.stop_at <= 1 and self.standard_errors):
            raise ValueError(f"stop_at={self.stop_at} is a share above 0 and up to 1, and needs standard_errors=True")
        if self.compat and (self.norms, self.weighting) != ("live", "both"):
            raise ValueError(f"compat={self.compat!r} is for norms='live' and weighting='both', which that code does")

    @property
    def options(self) -> Options:
        """What the engine is told."""
        return Options(
            self.metrics, self.norms == "live", self.weighting, self.min_importance, self.compat == "spd-413"
        )


def _one_of(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r}; it is one of {', '.join(map(repr, known))}")


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """A run that is settled: its folder, its settings, and the sizes of the work.

    Args:
        folder: The sub-run's folder.
        settings: What is summed.
        describes: What stores of this run record as their settings, in JSON's types.
        load: How a worker finds model and components again; None where they are in memory only.
        windows: How many there are.
        batches: How many there are.
        tokens: In all rows that are read.
        about: Versions and the like.
        sizes: Of the blocks and of the model, where they were computed (`whence.methods.dataset_sizes`).
    """

    folder: Path
    settings: DatasetSettings
    describes: Mapping[str, Any]
    load: Mapping[str, Any] | None
    windows: int
    batches: int
    tokens: int
    about: Mapping[str, Any]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def rows(self) -> TokenRows:
        """The data."""
        return TokenRows.open(self.folder / TOKENS)

    def of(self, shard: int, shards: int) -> range:
        """The windows of one shard: a run of neighbours, as long as the others' or one longer.

        Raises:
            ValueError: No such shard.
        """
        if not 0 <= shard < shards:
            raise ValueError(f"shard {shard} of {shards}: shards are numbered 0 to {shards - 1}")
        return shard_windows(self.windows, shard, shards)

    def shard_folder(self, shard: int, shards: int) -> Path:
        """Where a shard writes."""
        return self.folder / SHARDS / shard_name(shard, shards)

    def unembedding(self) -> dict[str, Tensor]:
        """The unembedding kept beside the run, scaled as the model scales logits; empty where none was kept."""
        file = self.folder / UNEMBEDDING
        return load_file(file) if file.is_file() else {}

    def write(self) -> None:
        """The plan, written in one step."""
        said = {"format": "whence", "kind": "dataset_plan", "version": VERSION} | {
            "settings": asdict(self.settings),
            "describes": dict(self.describes),
            "load": None if self.load is None else dict(self.load),
            "windows": self.windows,
            "batches": self.batches,
            "tokens": self.tokens,
            "about": dict(self.about),
            **self.sizes,
        }
        file = self.folder / PLAN
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, file)


def read_plan(folder: str | Path) -> DatasetPlan:
    """The plan of a sub-run.

    Raises:
        FileFormatError: No plan there, or one that this whence cannot read.
    """
    file = Path(folder) / PLAN
    if not file.is_file():
        raise FileFormatError(f"{folder} holds no {PLAN}; `whence dataset plan` makes one, in a folder da-… below OUT.")
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if (said["format"], said["kind"]) != ("whence", "dataset_plan") or said["version"] > VERSION:
            raise FileFormatError(
                f"{file} is no plan of a version this whence reads; upgrade it: pip install -U whence"
            )
        chosen = said["settings"] | {key: tuple(said["settings"][key]) for key in ("metrics", "output_tokens")}
        return DatasetPlan(
            Path(folder),
            DatasetSettings(**chosen),
            said["describes"],
            said["load"],
            *(int(said[key]) for key in ("windows", "batches", "tokens")),
            about=said["about"],
            sizes={name: int(said[name]) for name in SIZES if name in said},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{file} is damaged: {type(error).__name__}, {error}. Make the plan again.") from error


def make_plan(
    model: Model,
    given: Given,
    data: Any,
    out: str | Path,
    settings: DatasetSettings,
    *,
    load: Mapping[str, Any] | None = None,
    text_field: str = "text",
    unembedding: bool = True,
    progress: Progress = silent,
) -> DatasetPlan:
    """A new sub-run below `out`, with its data prepared.

    Args:
        model: the model.
        given: the components.
        data: as `whence.corpus.prepare.prepare` takes it.
        out: the folder of runs.
        settings: what is summed.
        load: how a worker finds model and components again.
        text_field: of records, the field with the text.
        unembedding: keep the unembedding, so that the result knows every token's signed row.
        progress: called with (stage, done, total).
    """
    folder = new_subrun(Path(out))
    wanted = None if settings.batches is None else settings.batches * settings.batch_size
    rows = prepare(
        data,
        model,
        folder / TOKENS,
        sequence_length=settings.sequence_length,
        rows=wanted,
        seed=settings.seed,
        pack=settings.pack,
        text_field=text_field,
        progress=progress,
    )
    batches = rows.batches(settings.batch_size)
    plan = DatasetPlan(
        folder,
        settings,
        _describes(model, given, rows, settings),
        load,
        -(-batches // settings.fold),
        batches,
        rows.tokens,
        provenance(model, "dataset_attributions"),
    )
    if unembedding:
        every = model.unembedding(torch.arange(model.vocab_size, device=model.device))
        save_file({"unembedding": every.detach().float().cpu().contiguous()}, folder / UNEMBEDDING)
    plan.write()
    return plan


def _describes(model: Model, given: Given, rows: TokenRows, settings: DatasetSettings) -> dict[str, Any]:
    """What must be equal for two stores to be added up."""
    tokens = sorted({*rows.seen.tolist(), *settings.output_tokens}) if model.tokenizer is not None else []
    return {
        "model": {
            "name": model.name,
            "revision": model.revision,
            "dtype": str(model.dtype).removeprefix("torch."),
            "weights": fingerprint(model),
        },
        "components": given.describe(),
        "data": {"fingerprint": rows.fingerprint, "rows": rows.rows, "about": rows.about},
        **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
        "token_strings": {str(token): model.token_text(token) for token in tokens},
    }


def fingerprint(model: Model) -> str:
    """Of a few numbers of every weight: cheap, and enough to tell checkpoints apart."""
    found = hashlib.sha256()
    for name, weight in model.hf.named_parameters():
        few = weight.detach().flatten()[:: max(weight.numel() // 16, 1)][:16]
        found.update(name.encode() + few.to(torch.float32).cpu().numpy().tobytes())
    return found.hexdigest()[:16]
