"""`whence dictionary`: what a dictionary of features is, and how well it fits a model on a prompt."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.console import print_json, say, stdout
from whence.cli.loading import load
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer()


@app.callback()
def dictionary() -> None:
    """Look at dictionaries of features: transcoders and sparse autoencoders."""


@app.command("info")
def info(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="A folder, a file, or org/repo, org/repo/sub or org/repo@revision on the Hub."
        ),
    ],
    model: Annotated[str | None, typer.Option(help=f"Measure FVU and L0 on this model. {MODEL_HELP}")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to measure on; the demo's own prompt if not given.")] = None,
    layer: Annotated[int | None, typer.Option(help="The layer, of a file that does not say it.")] = None,
    site: Annotated[
        str | None, typer.Option(help="The site, of a file that does not say it: transcoder, resid_post, ...")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Show where a dictionary reads and writes, how many features it has, and how well it fits a model."""
    if prompt is not None and model is None:
        raise typer.BadParameter("it needs --model MODEL", param_hint="--prompt")
    from whence.components.loading import load_dictionary
    from whence.demo import PROMPT
    from whence.engine.dictionary_fit import fit_on

    found = load_dictionary(reference, layer=layer, site=site)
    about, fits = found.describe(), ()
    if model is not None:
        hf = load(model, revision, device, dtype)
        say("measuring on the prompt, in one forward pass")
        fits = fit_on(hf, found, PROMPT if prompt is None else prompt)
    rows: list[dict[str, Any]] = [
        {"layer": layer, "features": found.n_features(layer), "writes at": list(found.written(layer))}
        for layer in found.layers
    ]
    for row, fit in zip(rows, fits, strict=False):
        row |= {"FVU": fit.fvu, "L0": fit.l0}
    if json:
        print_json(about | {"per_layer": rows})
        return
    _show(about, rows)


def _show(about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    out = stdout()
    sites = about["reads"] if about["reads"] == about["writes"] else f"{about['reads']} → {about['writes']}"
    lines = {
        "kind": about["kind"].replace("_", " "),
        "site": sites,
        "width": about["d_model"],
        "activation": ", ".join(about["activation"]) + (", with a linear skip" if about["skip"] else ""),
        "source": about["source"] + (f" at {about['revision']}" if about["revision"] else ""),
        "fingerprint": about["fingerprint"],
    }
    for name, value in lines.items():
        out.print(f"{name:<12}{value}", markup=False, soft_wrap=True)
    out.print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        out.add_column(name, justify="right")
    for row in rows:
        out.add_row(*(_cell(value) for value in row.values()))
    return out


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else f"{value[0]}-{value[-1]}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
