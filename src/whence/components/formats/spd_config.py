"""The settings of an spd run that matter when its components are read: `final_config.yaml`, in its layouts so far.

module_info: [{module_pattern, C}]  identity_module_info         before: C  target_module_patterns
ci_config: {mode, fn_type, ...}                                  before: ci_fn_type  ci_fn_hidden_dims  use_global_ci
sigmoid_type                                                     leaky_hard if not said
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whence.components.importance.sigmoids import SIGMOIDS
from whence.errors import FileFormatError

_KINDS = {
    **{name: name for name in ("mlp", "vector_mlp", "shared_mlp", "global_reverse_residual")},
    **{"global_shared_mlp": "global_mlp", "global_shared_transformer": "global_transformer"},
}


@dataclass(frozen=True, slots=True)
class SpdConfig:
    """What was decomposed, and by what importances are said.

    Args:
        file: Where this stands, for errors.
        patterns: Which modules, fnmatch-style, in the order of the file, and into how many components.
        kind: The importance network, as whence calls it.
        network: Its own settings, as the file has them.
        sigmoid: What follows it.
        model: The model that was decomposed, as the file calls it.
    """

    file: Path
    patterns: tuple[tuple[str, int], ...]
    kind: str
    network: Mapping[str, Any]
    sigmoid: str
    model: str | None

    def needed(self, name: str, within: Mapping[str, Any] | None = None) -> Any:
        """A setting of the importance network.

        Raises:
            FileFormatError: It is not there.
        """
        found = (self.network if within is None else within).get(name)
        if found is None:
            raise FileFormatError(f"{self.file} lacks {name!r}, which an importance network of its type needs.")
        return found


def read_config(file: Path) -> SpdConfig:
    """The settings.

    Raises:
        FileFormatError: No such file, no YAML, or a setting that is missing or not known.
    """
    said = _read(file)
    try:
        network, patterns = _network(said), _patterns(said)
        named = str(network["fn_type"])
        kind = _KINDS.get(named)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as wrong:
        raise FileFormatError(f"{file} does not describe a component model: {wrong!r} is missing or odd.") from wrong
    if kind is None:
        raise FileFormatError(f"{file} has importance networks of type {named!r}; known are {', '.join(_KINDS)}.")
    sigmoid = str(said.get("sigmoid_type", "leaky_hard"))
    if sigmoid not in SIGMOIDS:
        raise FileFormatError(f"{file} has a sigmoid_type {sigmoid!r}; known are {', '.join(SIGMOIDS)}.")
    model = (
        said.get("pretrained_model_name") or said.get("pretrained_model_name_hf") or said.get("pretrained_model_path")
    )
    return SpdConfig(file, patterns, kind, network, sigmoid, None if model is None else str(model))


def _read(file: Path) -> dict[str, Any]:
    import yaml

    if not file.is_file():
        raise FileFormatError(f"{file} is missing. Download the run's settings beside its checkpoint.")
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file} is no YAML file: {error}. Download it again.") from error
    except RecursionError:
        raise FileFormatError(f"{file} is nested too deep for settings. Download it again.") from None
    if not isinstance(said, dict):
        raise FileFormatError(f"{file} holds no settings by name. Download it again.")
    return said


def _patterns(said: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    if "target_module_patterns" in said:
        found = [(pattern, said["C"]) for pattern in said["target_module_patterns"]]
        inserted = [(pattern, said["C"]) for pattern in said.get("identity_module_patterns") or ()]
    else:
        found, inserted = (
            [(one["module_pattern"], one["C"]) for one in said[name]] if said.get(name) or name == "module_info" else []
            for name in ("module_info", "identity_module_info")
        )
    return tuple(
        (str(pattern), int(count)) for pattern, count in [*found, *((f"{p}.pre_identity", c) for p, c in inserted)]
    )


def _network(said: Mapping[str, Any]) -> dict[str, Any]:
    if "ci_config" in said:
        return dict(said["ci_config"])
    if not said.keys() & {"ci_fn_type", "ci_fn_hidden_dims", "use_global_ci"}:
        raise KeyError("ci_config")
    kind = str(said.get("ci_fn_type", "vector_mlp"))
    shared = bool(said.get("use_global_ci")) and not kind.startswith("global_")
    return {"fn_type": "global_shared_mlp" if shared else kind}
