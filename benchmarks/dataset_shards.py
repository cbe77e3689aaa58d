"""One shard of a run of dataset attributions, or the merging of all: a worker. Arguments: folder, shard, of how many.

The first worker of a folder plans the run; windows are single batches of 4 rows.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from dataset_model import Setup, load_setup
from dataset_whence import components_of
from measuring import Case, serve
from whence.engine.dataset.named import Given
from whence.methods.dataset import merge_run
from whence.methods.dataset_plan import DatasetPlan, make_plan, read_plan
from whence.methods.dataset_settings import DatasetSettings
from whence.methods.dataset_shard import run_shard
from whence.model.model import Model

BATCH = 4


def plan_of(folder: Path, model: Model, given: Given, setup: Setup) -> DatasetPlan:
    """The one run of a folder."""
    runs = sorted((folder / "runs").glob("da-*"))
    if runs:
        return read_plan(runs[-1])
    length = setup.shape.length
    settings = DatasetSettings(weighting="both", batch_size=BATCH, sequence_length=length, seed=None, fold=1)
    return make_plan(model, given, setup.ids, folder / "runs", settings)


def nbytes(folder: Path) -> int:
    """Bytes of a store."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Load, plan if need be, and wait for requests."""
    folder, shard, shards = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    setup = load_setup(folder)
    model = Model(AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager").eval())
    given = components_of(setup)
    plan = plan_of(folder, model, given, setup)
    cases = {
        "shard": Case(lambda: run_shard(plan, model, given, shard, shards), nbytes),
        "merge": Case(lambda: merge_run(plan.folder), nbytes),
    }
    serve(cases, {name: version(name) for name in ("whence", "torch", "transformers")})


if __name__ == "__main__":
    main()
