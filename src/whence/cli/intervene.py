"""`whence intervene`: change nodes of a model as it runs, and see what it says then."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.asking import dictionaries, token_ids
from whence.cli.changes import changes
from whence.cli.console import each_of, print_json, say, stdout
from whence.cli.loading import DEMO, load
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Position, Prompt, Revision, Units

if TYPE_CHECKING:
    from whence.interventions.kinds import Intervention
    from whence.interventions.session import Freeze
    from whence.model.model import Model

FROZEN = ("attention", "norms", "layers")
SHOWN = 5
_KEY = "a key such as 2.attn.head:3@5, 2.mlp or 3.mlp.feature:17@8; repeat it for several"


def intervene(
    prompt: Prompt,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEMO,
    ablate: Annotated[list[str] | None, typer.Option(metavar="KEY", help=f"Set a node to zero: {_KEY}.")] = None,
    set_to: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a node to a value.")
    ] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=+X|*X", help="Add to a node's value (+0.5, -2), or multiply it (*3)."),
    ] = None,
    patch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=PROMPT", help="Give a node the value it has at the same position of another prompt."),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            callback=each_of(*FROZEN),
            help=f"What stays as it is without the change: {', '.join(FROZEN)} (what MLPs write); several by commas.",
        ),
    ] = None,
    dictionary: Units = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help="The tokens to show; repeat it for several. The most likely if not given."),
    ] = None,
    position: Position = -1,
    generate: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Write N tokens as well, with and without.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Change nodes of the model as it runs, and print logits and probabilities before and after."""
    from whence.interventions.running import intervene as run

    changed = changes(ablate, set_to, steer, patch)
    found_in = dictionaries(dictionary, model)
    found = load(model, revision, device, dtype)
    held = _freeze(freeze, found)
    say("running the model with and without the change")
    outcome = run(found, prompt, changed, position=position, dictionary=found_in, freeze=held)
    logits = (outcome.clean_logits[0, 0].float(), outcome.logits[0, 0].float())
    texts: dict[str, str] = {}
    if generate is not None:
        texts = _written(found, prompt, changed, generate, dictionary=found_in, freeze=held)
    rows = _rows(found, logits, token_ids(found, targets))
    if json:
        print_json({"prompt": prompt, "interventions": list(map(repr, changed)), "tokens": rows, "generated": texts})
        return
    stdout().print(_table(rows))
    for name, text in texts.items():
        stdout().print(f"{name:<8} {text}", soft_wrap=True, markup=False)


def _freeze(words: str | None, model: "Model") -> "Freeze":
    from whence.interventions.session import Freeze

    chosen = () if words is None else words.split(",")
    layers = range(model.n_layers) if "layers" in chosen else None
    return Freeze(attention="attention" in chosen, norms="norms" in chosen, layers=layers)


def _written(model: "Model", prompt: str, changes: "list[Intervention]", count: int, **options: Any) -> dict[str, str]:
    """What the model goes on to write, with and without."""
    from whence.interventions.generating import generate

    found = {
        name: generate(model, prompt, lines, max_new_tokens=count, **options)
        for name, lines in (("before", []), ("after", changes))
    }
    return {name: one.text[0] if one.text else " ".join(map(str, one.ids[0].tolist())) for name, one in found.items()}


def _rows(model: "Model", logits: tuple[Any, Any], asked: Any) -> list[dict[str, Any]]:
    """The tokens asked for, or the most likely ones of both runs: with their logits and probabilities."""
    ids: list[int] = (
        [i for side in logits for i in side.topk(SHOWN).indices.tolist()] if asked is None else asked.tolist()
    )
    (before, after), (p, q) = logits, (side.softmax(-1) for side in logits)
    return [
        {
            "token": model.token_text(i),
            "id": i,
            "logit_before": float(before[i]),
            "logit_after": float(after[i]),
            "probability_before": float(p[i]),
            "probability_after": float(q[i]),
        }
        for i in dict.fromkeys(ids)
    ]


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from whence.results.sheet import quoted

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("token", no_wrap=True)
    for name in ("logit before", "after", "change", "probability before", "after"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        before, after = row["logit_before"], row["logit_after"]
        chances = (_chance(row[name]) for name in ("probability_before", "probability_after"))
        numbers = (text.replace("-", "−") for text in (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"))
        out.add_row(quoted(row["token"]), *numbers, *chances)
    return out


def _chance(value: float) -> str:
    return f"{value:.4f}" if value == 0 or value >= 1e-3 else f"{value:.1e}"
