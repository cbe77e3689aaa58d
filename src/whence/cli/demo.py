"""`whence demo`: the main job on the model that ships, with nothing to download and nothing to decide."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whence.cli.console import command_line, say, stdout
from whence.cli.demo_graph import show_graph
from whence.cli.loading import DEMO, load
from whence.cli.pictures import REMEDY, check_picture, has_matplotlib, save_table

if TYPE_CHECKING:
    from rich.table import Table

    from whence.results.scores import Scores

ROWS, HEADS, SOURCES = 8, 2, 3
FOIL, RUN = " Boston", "runs/austin"
VISIBLE = 0.005  # what would print as 0.00 says nothing


def demo(
    plot: Annotated[
        Path | None,
        typer.Option(
            callback=check_picture,
            help="Where to save the picture; whence-demo.png if not given. The graph's page lies beside it.",
        ),
    ] = None,
) -> None:
    """Show which parts of the model that ships wrote its answer, and through which features. Downloads nothing."""
    from whence.demo import PROMPT
    from whence.methods.direct import direct_logit_attribution

    model = load(DEMO, None, None, None)
    say("attributing its answer, by head and by what each head read")
    answer = model.token_text(int(model.logits(PROMPT).argmax()))
    scores = direct_logit_attribution(model, PROMPT, answer, by="head")
    sources = direct_logit_attribution(model, PROMPT, answer, by="source_token")
    out = stdout()
    out.print(f"No sentence this model was trained on says how “{PROMPT}” goes on. It says {answer!r}.\n", markup=False)
    out.print(scores.table(ROWS))
    out.print(_how_to_read(scores, answer) + "\n", markup=False)
    out.print(_reading(scores, sources))
    path, remedy = _save(scores, plot)
    show_graph(model, PROMPT, answer, path.with_suffix(".html"))
    out.print(f"Picture  {path}{remedy}", soft_wrap=True, markup=False)
    next_one = command_line("graph", PROMPT, "--targets", answer, "-o", RUN)
    out.print(f"Next     {next_one}", soft_wrap=True, markup=False)
    other_one = command_line("dla", PROMPT, "--target", answer, "--foil", FOIL, "--by", "neuron", "--top", str(ROWS))
    out.print(f"Or       {other_one}", soft_wrap=True, markup=False)


def _how_to_read(scores: "Scores", answer: str) -> str:
    strongest = scores.top(1)
    return (
        f"How to read it: the model gives {answer!r} a score (its logit) of {scores.target.item():.2f}, and each row "
        f"is what one part of the model added to it or took away, {strongest.keys[0]} (layer.part) most of all; the "
        "rows sum to the model's own number, so nothing is left out."
    )


def _reading(scores: "Scores", sources: "Scores") -> "Table":
    """What the strongest heads read: the tokens whose values they moved into the answer."""
    from rich import box
    from rich.table import Table

    out = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="[bold]What the strongest heads read[/]", title_justify="left"
    )
    out.add_column("head")
    out.add_column("value", justify="right")
    out.add_column("of it, from the tokens")
    for head, value in _strongest_heads(scores):
        out.add_row(str(head), _signed(value), _read_by(head, sources))
    return out


def _strongest_heads(scores: "Scores") -> list[tuple[Any, float]]:
    heads = [(key, scores.values[row].item()) for row, key in enumerate(scores.keys) if key.name == "attn.head"]
    return sorted(heads, key=lambda head: -abs(head[1]))[:HEADS]


def _read_by(head: Any, sources: "Scores") -> str:
    read = [
        (key.source or 0, sources.values[row].item())
        for row, key in enumerate(sources.keys)
        if (key.name, key.layer, key.index) == (head.name, head.layer, head.index)
    ]
    strongest = sorted(read, key=lambda pair: -abs(pair[1]))[:SOURCES]
    shown = [(source, value) for source, value in strongest if abs(value) >= VISIBLE]
    return ", ".join(f"{sources.tokens[0][source]!r} {_signed(value)}" for source, value in shown)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _save(scores: "Scores", plot: Path | None) -> tuple[Path, str]:
    """The picture, and how to get a better one."""
    if plot is not None or has_matplotlib():
        path = plot or Path("whence-demo.png")
        scores.plot(path, k=ROWS)
        return path, ""
    save_table(scores, path := Path("whence-demo.svg"), ROWS)
    return path, f" (for a PNG: {REMEDY})"
