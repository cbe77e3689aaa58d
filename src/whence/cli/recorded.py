"""The model and the dictionaries that a saved result was made with, from what it says of them."""

from typing import TYPE_CHECKING, Any

from whence.cli.asking import dictionaries
from whence.cli.loading import load
from whence.errors import FileFormatError

if TYPE_CHECKING:
    from whence.components.sets import DictionarySet
    from whence.model.model import Model


def stated(about: dict[str, Any], name: str, option: str | None = None) -> Any:
    """What a result's provenance says.

    Raises:
        FileFormatError: it does not; the message names the option to give instead.
    """
    if name not in about:
        raise FileFormatError(f"the result does not say with which {name} it was made; give --{option or name}.")
    return about[name]


def recorded_model(
    about: dict[str, Any], model: str | None, revision: str | None, device: str | None, dtype: str | None
) -> "Model":
    """The model named, or the one that the result was made with.

    Raises:
        FileFormatError: neither is known.
    """
    return load(
        model or stated(about, "model"),
        revision or (about.get("revision") if model is None else None),
        device,
        dtype or about.get("dtype"),
    )


def recorded_dictionary(about: dict[str, Any]) -> "DictionarySet | None":
    """The dictionary that a result describes, if it is still where it was.

    Raises:
        FileFormatError: it is not, or it is no longer what it was.
    """
    reference, revision = str(about["source"]), about["revision"]
    found = dictionaries(reference if revision is None or "@" in reference else f"{reference}@{revision}", "")
    now = None if found is None else found.describe()["fingerprint"]
    if now != about["fingerprint"]:
        raise FileFormatError(
            f"the dictionary {reference} is not the one the result was made with: its fingerprint is {now}, not "
            f"{about['fingerprint']}. Give the right one as --dictionary."
        )
    return found
