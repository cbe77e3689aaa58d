"""Parameter components from files and into files.

    meta      {parts: [{site, alive}], importance: {kind, ...}, source, revision, about}
    tensors   {site}.V  {site}.U  [{site}.alive]  importance.{name}            numbers may be 16-bit

That is whence's own format; component models that spd trained are read too (`formats/spd.py`). Cost: the tensors, which
are read whole. Never unpickles what is not a tensor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.components.formats import spd
from whence.components.formats.hub import resolve
from whence.components.importance.given import Given, Ones
from whence.components.importance.network import Network
from whence.components.importance.words import Known, kind_of
from whence.components.lazy import widened
from whence.components.parameters import ParameterComponents, Part
from whence.errors import FileFormatError
from whence.results import manifest, store

_KIND, _IMPORTANCE = "parameter_components", "importance."
_ODD = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError)


def save_components(path: str | Path, components: ParameterComponents, *, dtype: torch.dtype | None = None) -> Path:
    """The folder written, in whence's own format.

    Args:
        path: The folder to make; a whence result already there is replaced.
        components: What to save.
        dtype: Numbers in the file; torch.float16 halves it. As they are in memory if None.

    Raises:
        TypeError: The importances are a function of your own, which no file can hold.
        FileFormatError: The path holds something that is not a whence result.

    Example:
        >>> save_components("parts", load_components("parts"), dtype=torch.float16)  # doctest: +SKIP
    """
    importance = components.importance
    if not isinstance(importance, Known):
        raise TypeError(
            f"a file cannot hold {kind_of(importance)}. Evaluate it on your data and give the tensors as "
            "whence.components.importance.given.Given, or save V and U alone with Ones in its place."
        )
    tensors = {f"{part.site}.{end}": getattr(part, end) for part in components for end in "VU"}
    tensors |= {f"{_IMPORTANCE}{name}": tensor for name, tensor in importance.tensors.items()}
    stored = {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}
    stored |= {f"{part.site}.alive": part.alive for part in components if part.alive is not None}
    meta = {
        "parts": [{"site": part.site, "alive": part.alive is not None} for part in components],
        "importance": {"kind": importance.kind, **importance.said()},
        **{name: getattr(components, name) for name in ("source", "revision")},
        "about": dict(components.about or {}),
    }
    return store.write(path, _KIND, meta, stored)


def load_components(reference: str | Path) -> ParameterComponents:
    """The parameter components of a folder or a checkpoint, on the CPU, in fp32.

    Args:
        reference: A folder that `save_components` wrote, also as `org/repo[/sub][@revision]` on the Hub; a folder of
            an spd run (`final_config.yaml`, `model_<step>.pth`; the newest step is taken), or one such checkpoint.

    Raises:
        FileFormatError: Nothing is there, it is neither, or a file is damaged or not understood.

    Example:
        >>> load_components("parts")  # doctest: +SKIP
        ParameterComponents(28 matrices, 896 components, 512 alive, importance: shared_mlp)
    """
    found = resolve(reference)
    if spd.recognises(found.root):
        return _tried(spd.load(found.root), found.root)
    if not (found.root / manifest.NAME).is_file():
        raise FileFormatError(
            f"{found.root} holds no parameter components. Give a folder that save_components wrote, or one with spd's "
            "final_config.yaml and model_<step>.pth."
        )
    record = store.read(found.root, kind=_KIND)
    try:
        loaded = _own(record.meta, {name: _wide(tensor) for name, tensor in record.tensors.items()}, str(reference))
    except _ODD as wrong:
        raise FileFormatError(
            f"{found.root} does not describe parameter components: {wrong!r}. Save them again."
        ) from wrong
    return _tried(loaded, found.root)


def _wide(tensor: Tensor) -> Tensor:
    return widened(tensor) if tensor.is_floating_point() else tensor


def _own(meta: Mapping[str, Any], tensors: Mapping[str, Tensor], reference: str) -> ParameterComponents:
    parts = {
        site: Part(
            site, tensors[f"{site}.V"], tensors[f"{site}.U"], tensors[f"{site}.alive"] if said["alive"] else None
        )
        for said in meta["parts"]
        for site in (said["site"],)
    }
    weights = {name.removeprefix(_IMPORTANCE): one for name, one in tensors.items() if name.startswith(_IMPORTANCE)}
    importance = _importance(meta["importance"], weights, parts)
    return ParameterComponents(parts, importance, meta["source"] or reference, meta["revision"], meta["about"])


def _importance(said: Mapping[str, Any], tensors: Mapping[str, Tensor], parts: Mapping[str, Part]) -> Known:
    if said["kind"] == Given.kind:
        return Given(tensors)
    if said["kind"] == Ones.kind:
        return Ones(said["counts"])
    reads = {site: parts[site].V for site in said["reads"]}
    return Network(said["kind"], dict(said["counts"]), tensors, said["sigmoid"], reads, said["settings"])


def _tried(components: ParameterComponents, path: Path) -> ParameterComponents:
    """The same, once its importances have been seen to fit it: on one token of zeros."""
    inputs = {
        part.site: torch.zeros(1, 1, dtype=torch.long)
        if part.site == "embed.matrix"
        else part.V.new_zeros(1, 1, len(part.V))
        for part in components
    }
    try:
        components.importances(inputs, torch.zeros(1, dtype=torch.long))
    except _ODD as wrong:
        raise FileFormatError(f"{path}: the importance network does not fit the components: {wrong}") from wrong
    return components
