"""What a dataset run is to do, settled once and written down: settings, prepared data, windows.

    OUT/da-YYYYMMDD_HHMMSS/plan.json                  settings, sizes, how workers find model and components again
    OUT/da-YYYYMMDD_HHMMSS/tokens/                    the data as rows of tokens
    OUT/da-YYYYMMDD_HHMMSS/unembedding.safetensors    for output tokens that were not named up front

Batch i is rows i b … i b + b − 1 in the order that the seed gives; `fold` batches are a window, the unit of work, so
that any number of shards sums the same windows. Cost: reading and tokenising the data once. Components are told apart
by what they say of themselves: of an importance function of a user's own the plan knows the name alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from whence.corpus.prepare import prepare
from whence.corpus.token_rows import TokenRows
from whence.engine.dataset.named import Given
from whence.errors import FileFormatError
from whence.methods.dataset_settings import DatasetSettings
from whence.methods.fingerprint import fingerprint
from whence.methods.provenance import provenance
from whence.model.model import Model
from whence.progress import Progress, silent
from whence.results.dataset_runs import new_subrun
from whence.results.shard_progress import shard_name, shard_windows

PLAN, TOKENS, SHARDS, RESULT = "plan.json", "tokens", "shards", "result"
UNEMBEDDING = "unembedding.safetensors"
VERSION = 1
SIZES = ("blocks", "block_elements", "block_bytes", "model_bytes", "batch_bytes", "seconds_per_window")


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
        return shard_windows(self.windows, shard, shards)

    def batches_of(self, window: int) -> range:
        """The batches of one window."""
        first = window * self.settings.fold
        return range(first, min(first + self.settings.fold, self.batches))

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
