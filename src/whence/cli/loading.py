"""From what was typed after --model to a model, with every common failure said in one sentence.

transformers knocks many times at a Hub that cannot be reached, so one that is not in the cache is first asked for once.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from whence.cli.console import say, show_warnings, stderr
from whence.errors import WhenceError

if TYPE_CHECKING:
    from whence.model.model import Model

DEMO = "demo"
_HUB_SECONDS = 10


class LoadingError(WhenceError):
    """A model that could not be read, through no fault of its architecture."""


def load(name: str, revision: str | None, device: str | None, dtype: str | None) -> "Model":
    """The model, self-checked; progress goes to stderr.

    Args:
        name: "demo", a folder, or a name on the Hub.
        revision: of a model on the Hub.
        device: as torch writes it.
        dtype: of the weights.

    Raises:
        LoadingError: no such model, no connection, no access, no such device.
        UnsupportedModelError: from the model's self-check.
    """
    where = locate(name)
    say(f"loading {name} and checking it")
    _quiet()
    _check_device(device)
    from whence.model.model import Model

    if not where.is_dir():
        _ask_hub(name, revision)
    try:
        return Model.from_pretrained(str(where), revision=revision, device=device, dtype=dtype)
    except (
        OSError,
        ValueError,
    ) as error:  # transformers' way of saying that files are missing or not what they should be
        raise LoadingError(f"cannot load {name!r}: {_first_sentence(error)}") from error


def locate(name: str) -> Path:
    """The folder that a name stands for, or the name itself where it can only be one on the Hub.

    Raises:
        LoadingError: a path to nothing, or to a folder that holds no model; a misspelt "demo".
    """
    if name == DEMO:
        from whence.demo import model_path

        return model_path()
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LoadingError(f"the folder {name!r} has no config.json; give a folder that save_pretrained wrote.")
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or path.is_file():
        raise LoadingError(
            f"there is no folder {name!r}; give a folder that save_pretrained wrote, or a name on the Hub."
        )
    if get_close_matches(name, [DEMO], cutoff=0.75):
        raise LoadingError(f"there is no model {name!r}; did you mean {DEMO!r}?")
    return Path(name)


def _quiet() -> None:
    """No bars of transformers; those of downloads only where someone can watch them."""
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    show_warnings()
    transformers.logging.disable_progress_bar()
    if not stderr().is_terminal:
        disable_progress_bars()


def _check_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise LoadingError(f"--device {device}: {reason}. This torch can use {', '.join(_devices())}.") from error


def _devices() -> list[str]:
    import torch

    accelerator = torch.accelerator.current_accelerator()
    return ["cpu"] if accelerator is None else ["cpu", accelerator.type]


def _ask_hub(name: str, revision: str | None) -> None:
    """Raise unless the model is in the cache or the Hub says it has it."""
    from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str) or constants.HF_HUB_OFFLINE:
            return
        HfApi().model_info(name, revision=revision, timeout=_HUB_SECONDS)
    except errors.HFValidationError:
        raise LoadingError(
            f"{name!r} is neither a folder nor a name on the Hub (those read organisation/model)."
        ) from None
    except errors.RevisionNotFoundError:
        raise LoadingError(
            f"{name!r} has no revision {revision!r} on the Hub; give a branch, tag or commit of it."
        ) from None
    except errors.RepositoryNotFoundError:
        remedy = "check the name; if it is private, log in with `hf auth login`"
        raise LoadingError(
            f"there is no folder {name!r}, and the Hub has no such model that you can see; {remedy}."
        ) from None
    except Exception as error:  # noqa: BLE001  # which client the Hub library uses, and what that raises, depends on its version
        why, remedy = type(error).__name__, "check the connection, or give a folder that holds the model"
        raise LoadingError(
            f"{name!r} is not on this machine, and the Hub could not be asked for it ({why}); {remedy}."
        ) from None


def _first_sentence(error: Exception) -> str:
    """The first line of what transformers says, which for missing files runs to a paragraph."""
    line = str(error).strip().partition("\n")[0].rstrip(" .")
    return f"{line or type(error).__name__}."
