"""`whence dataset plan`: a run settled and its data prepared, for workers to compute; nothing is summed yet."""

from typing import TYPE_CHECKING, Any

from whence.cli.console import command_line, print_json, progress_bar, stdout
from whence.cli.dataset_asking import planned
from whence.cli.dataset_wanted import Wanted
from whence.cli.options import Json
from whence.cli.spreading import spread
from whence.results.words import counted

if TYPE_CHECKING:
    from whence.methods.dataset_plan import DatasetPlan


@spread(Wanted)
def plan(wanted: Wanted, json: Json = False) -> None:
    """Settle a run: prepare its data, compute its sizes, and write the folder that workers take their shards from."""
    with progress_bar() as progress:
        made = planned(wanted, progress)
    if json:
        print_json(said(made))
        return
    show(made)
    print_line("Next", command_line("dataset", "run", "--resume", str(made.folder), "--shards", "4", "--workers", "2"))
    print_line("or", command_line("dataset", "worker", str(made.folder), "--shard", "0/1"))


def said(made: "DatasetPlan") -> dict[str, Any]:
    """A plan in JSON's types."""
    sizes = {"windows": made.windows, "batches": made.batches, "tokens": made.tokens, **made.sizes}
    return {"folder": str(made.folder), "load": made.load, **sizes}


def show(made: "DatasetPlan") -> None:
    """A plan in a few lines."""
    print_line("Run", str(made.folder))
    windows = f"{counted(made.windows, 'window')} of up to {made.settings.fold} batches"
    print_line("Data", f"{counted(made.tokens, 'token')}, {windows}")
    if made.sizes:
        size = f"{made.sizes['block_bytes'] / 1e6:,.1f} MB on disk and in memory, for each shard"
        print_line("Blocks", f"{made.sizes['blocks']:,} between sites, {size}")


def print_line(name: str, text: str) -> None:
    """A name and what it stands for."""
    stdout().print(f"{name:<9}{text}", soft_wrap=True, markup=False)
