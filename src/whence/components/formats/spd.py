"""Component models that spd trained: a folder with `final_config.yaml` and `model_{step}.pth`, or one such checkpoint.

    _components.{module}.V [in, C]   .U [C, out]          module paths with dashes for dots
    ci_fn. ...                                            importance networks (`spd_importance.py`)
    target_model. ...                                     the decomposed model, of which only the names are read

Earlier layouts (`patched_model.`, `.components.V`, `_gates.`) are renamed. Where identity modules were inserted before
matrices, they are left out: the model itself has none. Cost: V, U and the networks; nothing else of the file is read.
"""

import logging
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from torch import Tensor

from whence.components.formats.spd_config import SpdConfig, read_config
from whence.components.formats.spd_importance import dashed, network_of
from whence.components.formats.spd_paths import site_of_module
from whence.components.lazy import widened
from whence.components.parameters import ParameterComponents, Part
from whence.errors import FileFormatError
from whence.results.torch_state import read_state

_CONFIG, _INSERTED, _TARGET = "final_config.yaml", ".pre_identity", "target_model."
_CHECKPOINT = re.compile(r"model_(\d+)[.]pth")
_MODULE = re.compile(r"target_model[.](.+)[.]weight")
_OLD_COMPONENT = re.compile(r"target_model[.](.+)[.]components[.]([UV])")
logger = logging.getLogger(__name__)


def recognises(path: Path) -> bool:
    """Whether it is a checkpoint, or a folder with the settings of a run."""
    return (path.is_file() and path.suffix == ".pth") or (path / _CONFIG).is_file()


def load(path: Path) -> ParameterComponents:
    """The components of a run, with its importance network.

    Raises:
        FileFormatError: Files that are missing, damaged or of another kind, modules with no canonical name, or tensors
            that do not fit the settings.
    """
    file = _checkpoint(path)
    config = read_config(file.with_name(_CONFIG))
    every = {_renamed(name): tensor for name, tensor in read_state(file, _wanted).items()}
    state = {name: widened(tensor) for name, tensor in every.items() if tensor is not None}
    modules = [match[1] for name in every if (match := _MODULE.fullmatch(name))]
    try:
        parts = _parts(file, config, state, modules)
        importance = network_of(state, config, parts)
    except KeyError as missing:
        raise FileFormatError(f"{file} has no tensor {missing}, which its settings call for ({config.kind}).") from None
    in_order = sorted(parts, key=modules.index)
    about = {"decomposed": config.model, "importance": config.kind}
    return ParameterComponents(
        {parts[one].site: parts[one] for one in in_order}, importance, str(path), file.name, about
    )


def _checkpoint(path: Path) -> Path:
    if path.is_file():
        return path
    found = {int(match[1]): file for file in path.iterdir() if (match := _CHECKPOINT.fullmatch(file.name))}
    if not found:
        raise FileFormatError(f"{path} has settings and no checkpoint model_<step>.pth. Download one beside them.")
    return found[max(found)]


def _wanted(name: str) -> bool:
    return not _renamed(name).startswith(_TARGET) and not name.endswith((".bias", ".inv_freq"))


def _renamed(name: str) -> str:
    """A tensor's name in the newest layout."""
    name = name.replace("_gates.", "_ci_fns.")
    if name.startswith("patched_model."):
        name = _TARGET + name.removeprefix("patched_model.")
    if name.endswith(".original.weight"):
        name = name.removesuffix(".original.weight") + ".weight"
    component = _OLD_COMPONENT.fullmatch(name)
    if component is not None:
        return f"_components.{dashed(component[1])}.{component[2]}"
    return f"ci_fn.{name}" if name.startswith("_ci_fns.") else name


def _parts(file: Path, config: SpdConfig, state: Mapping[str, Tensor], modules: list[str]) -> dict[str, Part]:
    """The decomposed matrices by module path, in the order in which the settings name them."""
    inserted = [name for name in state if name.startswith("_components.") and name.endswith(f"{dashed(_INSERTED)}.V")]
    if inserted:
        _leave_out(file, config, len(inserted))
    parts: dict[str, Part] = {}
    for pattern, count in config.patterns:
        for path in (module for module in modules if fnmatch(module, pattern)):
            parts[path] = _part(file, path, count, state, modules)
    left = [name for name in state if name.endswith(".V") and name.startswith("_components.") and name not in inserted]
    odd = {name.removeprefix("_components.").removesuffix(".V") for name in left} - set(map(dashed, parts))
    if odd or not parts:
        raise FileFormatError(f"{file} decomposes {', '.join(sorted(odd)) or 'nothing'}, unlike {config.file} says.")
    return parts


def _leave_out(file: Path, config: SpdConfig, count: int) -> None:
    if config.kind.startswith("global"):
        raise FileFormatError(
            f"{file} decomposes {count} identity modules that were inserted into the model, and its global importance "
            "network reads them, so they cannot be left out. Decompose the model's own matrices."
        )
    logger.warning("%s: %d decomposed identity modules are left out, as the model itself has none", file, count)


def _part(file: Path, path: str, count: int, state: Mapping[str, Tensor], modules: list[str]) -> Part:
    site = site_of_module(path, modules)
    if site is None:
        raise FileFormatError(
            f"{file} decomposes {path}, which whence has no name for. It knows the matrices of attention and MLPs of "
            "GPT-2- and Llama-like models, their embedding and unembedding."
        )
    V, U = (state[f"_components.{dashed(path)}.{end}"] for end in "VU")
    if V.ndim != 2 or U.ndim != 2 or (V.shape[1], U.shape[0]) != (count, count):
        shapes = f"V {tuple(V.shape)} and U {tuple(U.shape)}"
        raise FileFormatError(f"{file}: {path} has {shapes}, and its settings say {count} components.")
    return Part(site, V, U)
