"""`whence dla`: direct logit attribution of one or several prompts. The options are the library's own arguments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from whence.cli.asking import TOKEN, token, warn_of_unknown_words
from whence.cli.console import each_of, one_of, print_json, say, stdout
from whence.cli.loading import DEMO, load
from whence.cli.options import MODEL_HELP, Device, Dtype, Json, Revision
from whence.cli.pictures import SUFFIXES, check_picture

if TYPE_CHECKING:
    from whence.results.scores import Scores

# Spelled out here because asking the library would load torch for `--help`; a test keeps them equal to it.
BY = ("component", "layer", "head", "source_token", "neuron", "expert", "channel", "feature")
BIAS = ("separate", "exclude")


def _position(text: str) -> str:
    try:
        read_position(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no position; give an integer (-1 is the last token) or all") from None
    return text


def read_position(text: str) -> int | None:
    """A position as the library takes it: None for "all"."""
    return None if text == "all" else int(text)


def read_by(text: str) -> str | tuple[str, ...]:
    """One granularity, or several that were joined by commas."""
    words = text.split(",")
    return words[0] if len(words) == 1 else tuple(words)


def dla(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="The text; several make one batch.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEMO,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN", help=f"What to explain: {TOKEN}. The most likely token if not given."),
    ] = None,
    foil: Annotated[list[str] | None, typer.Option(metavar="TOKEN", help=f"What to subtract: {TOKEN}.")] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=each_of(*BY),
            help=f"How finely the model is told apart: {', '.join(BY)}; or those that go together, as in head,neuron.",
        ),
    ] = "component",
    position: Annotated[
        str,
        typer.Option(metavar="INT|all", callback=_position, help="Where to explain the next token; -1 is the last."),
    ] = "-1",
    top: Annotated[
        int | None, typer.Option(min=1, help="Keep only this many units; the others are summed in one row.")
    ] = None,
    accumulated: Annotated[
        bool, typer.Option("--accumulated", help="Show running sums through the layers (by component or layer).")
    ] = False,
    centered: Annotated[
        bool, typer.Option("--centered", help="Explain the logit less the mean logit of the vocabulary.")
    ] = False,
    bias: Annotated[
        str,
        typer.Option(
            metavar="WORD",
            callback=one_of(*BIAS),
            help=f"What becomes of biases and constants: {' or '.join(BIAS)}.",
        ),
    ] = "separate",
    fold_value_bias: Annotated[
        bool, typer.Option("--fold-value-bias", help="Count what value biases send through heads as bias.")
    ] = False,
    dictionary: Annotated[
        Path | None, typer.Option(help="Folder of the dictionaries whose features --by feature shows.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(callback=check_picture, help=f"Save a picture as well: {', '.join(SUFFIXES)}.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save the scores as well, in a folder to open with Scores.load.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of the table and the picture, the others summed; 15 if not given.")
    ] = None,
) -> None:
    """Say which parts of a model wrote a logit (direct logit attribution). The rows sum to the model's own number."""
    from whence.engine.granularity import granularities
    from whence.methods.direct import direct_logit_attribution

    options = {
        "targets": _tokens(target), "foils": _tokens(foil), "by": read_by(by), "position": read_position(position),
        "accumulated": accumulated, "centered": centered, "bias": bias, "fold_value_bias": fold_value_bias, "top": top,
    }  # fmt: skip
    if "feature" in by and dictionary is None:
        raise typer.BadParameter("it needs --dictionary FOLDER", param_hint="--by feature")
    granularities(read_by(by))  # what cannot be combined is said before a large model is loaded
    options["dictionary"] = _dictionary(dictionary)
    found = load(model, revision, device, dtype)
    say(f"attributing {len(prompts)} prompt{'' if len(prompts) == 1 else 's'} in one forward pass")
    scores = direct_logit_attribution(found, prompts, **cast(Any, options))
    warn_of_unknown_words([text for tokens in scores.tokens for text in tokens], found.tokenizer)
    _show(scores, json, plot, save, rows)


def _tokens(given: list[str] | None) -> Any:
    """Targets as the library takes them: nothing, one token, or a list of them."""
    tokens = [token(text) for text in given or ()]
    return None if not tokens else tokens[0] if len(tokens) == 1 else tokens


def _dictionary(path: Path | None) -> Any:
    if path is None:
        return None
    from whence.components.loading import load_dictionary

    return load_dictionary(path)


def _show(scores: "Scores", json: bool, plot: Path | None, save: Path | None, rows: int | None) -> None:
    """The results on stdout, then what was asked to be saved."""
    if json:
        print_json(scores.to_json())
    else:
        stdout().print(scores.table(rows))
    if plot is not None:
        scores.plot(plot, k=rows)
        say(f"saved the picture to {plot}")
    if save is not None:
        say(f"saved the scores to {scores.save(save)}")
