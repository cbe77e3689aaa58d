"""`whence dataset examples`: where in the data an edge is strongest. Needs the run's model and components."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from whence.cli.console import print_json, progress_bar, say, stdout
from whence.cli.dataset_options import Count, Run, Source, Target, key_of, opened
from whence.cli.options import MODEL_HELP, Device, Json

if TYPE_CHECKING:
    from whence.results.dataset_store import Store


def examples(
    run: Run,
    source: Source,
    target: Target,
    k: Count = 10,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Look at the first so many batches; at all if not given.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"If not the run's own. {MODEL_HELP}")] = None,
    components: Annotated[
        list[str] | None, typer.Option(metavar="REF", help="If not the run's own. Repeat it for more.")
    ] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Show the prompts and positions behind an edge; ⟨⟩ marks where the source writes, [] where the target reads."""
    from whence.cli.dataset_asking import found_again
    from whence.methods.dataset_examples import top_examples
    from whence.methods.dataset_plan import read_plan

    found = opened(run)
    store: Store = found.store  # type: ignore[assignment]  # a run that was opened lies in a folder
    ends = key_of(found, source), key_of(found, target)
    own, units = found_again(read_plan(store.folder.parent), device, model, components)
    say("looking at the data again")
    with progress_bar() as progress:
        strongest = top_examples(store.folder, own, units, *ends, k=k, batches=batches, progress=progress)
    if json:
        print_json([asdict(one) for one in strongest])
        return
    for one in strongest:
        stdout().print(str(one), soft_wrap=True, markup=False)
