"""`whence dataset`: which units feed which, on average over a dataset; planned, computed, merged and asked."""

import typer

from whence.cli import (
    dataset_examples,
    dataset_files,
    dataset_plan,
    dataset_rank,
    dataset_run,
    dataset_show,
    dataset_sites,
    dataset_work,
)

app = typer.Typer()


@app.callback()
def dataset() -> None:
    """Sum attributions between units over a dataset, and ask what feeds what."""


app.command("run")(dataset_run.run)
app.command("plan")(dataset_plan.plan)
app.command("worker")(dataset_work.worker)
app.command("merge")(dataset_work.merge)
app.command("show")(dataset_show.show)
app.command("top-sources")(dataset_rank.top_sources)
app.command("top-targets")(dataset_rank.top_targets)
app.command("between")(dataset_rank.between)
app.command("block")(dataset_rank.block)
app.command("layers")(dataset_sites.layers)
app.command("components")(dataset_sites.components)
app.command("stability")(dataset_show.stability)
app.command("examples")(dataset_examples.examples)
app.command("diff")(dataset_files.diff)
app.command("export")(dataset_files.export)
app.command("import")(dataset_files.import_file)
app.command("verify")(dataset_show.verify)
