"""What was typed after an option, as the library takes it; what cannot be meant is said before a large model loads."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from whence.cli.console import say
from whence.cli.loading import DEMO

if TYPE_CHECKING:
    from torch import Tensor

    from whence.components.neurons import Neurons
    from whence.components.sets import DictionarySet
    from whence.model.model import Model

NEURONS = "none"
SHIPPED = ("transcoders", "cross_layer_transcoder", "sae_resid_post", "sae_attn_out", "sae_mlp_out")
ID = "id:"
TOKEN = f"exactly one token (mind the leading space: ' Austin') or {ID}NUMBER; repeat it for several"
EDGES = 0.98  # the share of influence of the edges that pruning keeps if only that of the nodes is given


def token(text: str) -> str | int:
    """A token as the library takes it: its text, or a number."""
    digits = text.removeprefix(ID)
    return int(digits) if digits != text and digits.isdecimal() else text


def token_ids(model: "Model", texts: list[str] | None) -> "Tensor | None":
    """The ids of several tokens; None if none was named.

    Raises:
        ValueError: text that is not one token, or an id the model does not have.
    """
    import torch

    return torch.tensor([model.token_id(token(text)) for text in texts]) if texts else None


def shares(text: str) -> tuple[float, float]:
    """The shares of influence of nodes and of edges in "0.8/0.98", or in "0.8" alone.

    Raises:
        ValueError: other text, or a share outside 0 to 1.
    """
    nodes, slash, edges = text.partition("/")
    found = float(nodes), float(edges) if slash else EDGES
    if not all(0 <= share <= 1 for share in found):
        raise ValueError(text)
    return found


def check_shares(text: str | None) -> str | None:
    """The text, if it is shares of influence."""
    try:
        _ = text is None or shares(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no NODES/EDGES; give shares of influence, such as 0.8/0.98") from None
    return text


def part(text: str) -> tuple[int, int]:
    """The part of a job in "0/4": the first of four.

    Raises:
        ValueError: other text.
    """
    number, count = map(int, text.split("/"))
    if not 0 <= number < count:
        raise ValueError(text)
    return number, count


def check_part(text: str | None) -> str | None:
    """The text, if it is a part of a job."""
    try:
        _ = text is None or part(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no I/N; 0/4 is the first of four parts, 3/4 the last") from None
    return text


def check_output(path: Path | None) -> Path | None:
    """The folder, if a result can be saved there."""
    from whence.results import manifest

    empty = path is None or not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if path is not None and not empty and not manifest.is_ours(path):
        raise typer.BadParameter(
            f"'{path}' exists and is not a whence result, so it is left alone; choose another path"
        )
    return path


def dictionaries(reference: str | None, model: str) -> "DictionarySet | None":
    """The dictionary named; None if none was. The demo model comes with its own, by their names.

    Raises:
        FileFormatError: no such dictionary.
    """
    if model == DEMO and (reference is None or (reference in SHIPPED and not Path(reference).exists())):
        from whence.demo import dictionary_path

        reference = str(dictionary_path(reference or "transcoders"))  # type: ignore[arg-type]
    if reference in (None, NEURONS):
        return None
    from whence.components.loading import load_dictionary

    local = Path(str(reference)).expanduser()  # a saved graph names it, whatever folder it is opened from
    return load_dictionary(str(local.resolve()) if local.exists() else str(reference))


def units(reference: str | None, model: str, gate: str | None) -> "DictionarySet | Neurons":
    """What stands for the MLPs in a graph."""
    from whence.components.neurons import Neurons

    if gate is not None and reference != NEURONS:
        raise typer.BadParameter(f"it is for neurons: it needs --dictionary {NEURONS}", param_hint="--gate")
    if reference is None and model != DEMO:
        remedy = f"it needs --dictionary REF with transcoders of this model, or {NEURONS} for its own MLP neurons"
        raise typer.BadParameter(remedy, param_hint="--model")
    chosen = dictionaries(reference, model)
    return Neurons(gate or "frozen") if chosen is None else chosen  # type: ignore[arg-type]


def warn_of_unknown_words(tokens: "tuple[str, ...] | list[str]", tokenizer: Any) -> None:
    """Say so, if a prompt has words that the tokenizer does not know."""
    unknown = None if tokenizer is None else tokenizer.unk_token
    if unknown is not None and unknown in tokens:
        say(f"warning: the prompt has words that this model does not know; it reads them as {unknown}")
