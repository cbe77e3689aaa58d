"""Dictionaries from files and into files, in whatever format they are: the loader is chosen by looking at the files.

Formats, each with its layout in `formats/`: whence's own, circuit-tracer, SAELens, sparsify, dictionary_learning, Gemma
Scope and Gemma Scope 2. Matrices stay in safetensors files and are read by rows; pickled and npz files are read whole.
Cost: small tensors, and the checksum of what whence wrote itself. Never unpickles what is not a tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from whence.components.dictionaries import Dictionary
from whence.components.formats import circuit_tracer, dictionary_learning, gemma_scope, own, saelens, sparsify
from whence.components.formats.hints import TRANSCODER, Hints
from whence.components.formats.hub import resolve
from whence.components.sets import DictionarySet, as_dictionary_set
from whence.errors import FileFormatError


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is told by its files, and read."""

    recognises: Callable[[Path], bool]
    load: Callable[[Path, Hints], list[Dictionary]]


FORMATS = {
    "whence": Format(own.recognises, own.load),
    "circuit-tracer": Format(circuit_tracer.recognises, circuit_tracer.load),
    "SAELens": Format(saelens.recognises, saelens.load),
    "sparsify": Format(sparsify.recognises, sparsify.load),
    "dictionary_learning": Format(dictionary_learning.recognises, dictionary_learning.load),
    "Gemma Scope": Format(gemma_scope.recognises, gemma_scope.load),
}


def save_dictionary(
    path: str | Path,
    dictionary: Dictionary | Sequence[Dictionary] | DictionarySet,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """The folder written, in whence's own format: one dictionary, or those of several layers.

    Args:
        path: The folder to make; a whence result already there is replaced.
        dictionary: One, or several of one kind and site.
        dtype: Numbers in the file, all of them; torch.float16 halves it. As they are in memory if None.

    Raises:
        ValueError: The dictionaries make no set (`DictionarySet`).
        FileFormatError: The path holds something that is not a whence result.

    Example:
        >>> save_dictionary("saes", load_dictionary("saes"), dtype=torch.float16)  # doctest: +SKIP
    """
    found = as_dictionary_set(dictionary)
    return own.save(Path(path), found.kind, found.dictionaries, dtype)


def load_dictionary(reference: str | Path, *, layer: int | None = None, site: str | None = None) -> DictionarySet:
    """The dictionaries of a folder, a file, or a repository on the Hugging Face Hub.

    Numbers are handed out in fp32 on the CPU (`.to` moves them, `.in_memory` reads them all); until then what lies in
    safetensors files stays there.

    Args:
        reference: A folder, a file, or `org/repo[/sub][@revision]`, also as `hf://...`.
        layer: The layer of a file that does not say it, such as a bare npz.
        site: The site of a file that does not say it: "transcoder", or an SAE's, such as "resid_post".

    Raises:
        FileFormatError: Nothing is there, no format is recognised, or a file is damaged or not understood; the Hub
            cannot be reached.
        ValueError: layer or site is not what the files say, or the files make no set (give a folder below).

    Example:
        >>> from whence.demo import dictionary_path
        >>> load_dictionary(dictionary_path("transcoders")).n_features(2)
        512
    """
    found = resolve(reference)
    name, form = _format_of(found.root)
    dictionaries = form.load(found.root, Hints(layer, site, found.root, found.path))
    if not dictionaries:
        raise FileFormatError(f"{reference} looks like {name} and holds no dictionary. Download the whole folder.")
    try:
        loaded = DictionarySet(tuple(dictionaries), str(reference), found.revision)
    except ValueError as several:
        raise FileFormatError(f"{reference}: {several} Or load a folder below it alone.") from several
    _check_hints(loaded, layer, site)
    return loaded


def _format_of(path: Path) -> tuple[str, Format]:
    for name, form in FORMATS.items():
        if form.recognises(path):
            return name, form
    raise FileFormatError(
        f"{path} holds no dictionary that whence can read. It looks for files of {', '.join(FORMATS)}."
    )


def _check_hints(found: DictionarySet, layer: int | None, site: str | None) -> None:
    if layer is not None and found.layers != (layer,):
        raise ValueError(f"layer={layer}, and the files say layers {', '.join(map(str, found.layers))}. Leave it out.")
    said = TRANSCODER if found.kind == "transcoder" else found.writes
    if site not in (None, said):
        raise ValueError(f"site={site!r}, and the files say {said!r}. Leave it out.")
