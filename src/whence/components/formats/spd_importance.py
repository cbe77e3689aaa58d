"""The importance networks of spd's component models, from their state dict to whence's names.

    ci_fn._ci_fns.{module}.layers.{2 n}.W                      {site}.{n}.W          GELUs stand at odd numbers
    ci_fn._global_ci_fn.layers.{2 n}.W                         {n}.W
    ..._input_projector.W  ..._blocks.{n}.attn.q_proj.weight   input.0.W  block.{n}.attn.q
    ..._readers.{group}.{2 n}.W  ..._transitions.{group}.W     group.{n}.reader.{n}.W  group.{n}.transition.0.W

Modules are named with dashes for dots. A global network takes inputs in the order of the sorted paths of the modules.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from torch import Tensor

from whence.components.formats.spd_config import SpdConfig
from whence.components.importance.network import Network
from whence.components.parameters import Part
from whence.errors import FileFormatError

_GLOBAL = "ci_fn._global_ci_fn."
_ENDS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
State = Mapping[str, Tensor]


def network_of(state: State, config: SpdConfig, parts: Mapping[str, Part]) -> Network:
    """The importance network of these parts.

    Args:
        state: Tensors by the names of the newest layout.
        config: The run's settings.
        parts: By module path, in the order in which the settings name them.

    Raises:
        KeyError: A tensor that is not there.
        FileFormatError: Settings that are missing, or groups that do not cover the modules.
    """
    settings, paths = dict[str, Any](), sorted(parts)
    if config.kind == "global_mlp":
        tensors = _perceptron(state, f"{_GLOBAL}layers.", "")
    elif config.kind == "global_transformer":
        tensors, settings = _transformer(state, config)
    elif config.kind == "global_reverse_residual":
        tensors, settings = _reverse_residual(state, config, parts)
    else:
        each = [_perceptron(state, f"ci_fn._ci_fns.{dashed(path)}.layers.", f"{parts[path].site}.") for path in paths]
        tensors = {name: tensor for one in each for name, tensor in one.items()}
    # Networks of one activation read V everywhere; the others only where the input is a token.
    read = [part for part in parts.values() if config.kind == "mlp" or part.site == "embed.matrix"]
    counts = {parts[path].site: parts[path].count for path in paths}
    return Network(config.kind, counts, tensors, config.sigmoid, {part.site: part.V for part in read}, settings)


def dashed(path: str) -> str:
    """A module path as it stands in the name of a tensor."""
    return path.replace(".", "-")


def _transformer(state: State, config: SpdConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    said = config.needed("simple_transformer_ci_cfg")
    blocks = int(config.needed("n_blocks", said))
    tensors = _perceptron(state, f"{_GLOBAL}_input_projector.", "input.")
    tensors |= _perceptron(state, f"{_GLOBAL}_output_head.", "output.")
    for n in range(blocks):
        tensors |= _attention(state, f"{_GLOBAL}_blocks.{n}.attn.", f"block.{n}.attn.")
        tensors |= _perceptron(state, f"{_GLOBAL}_blocks.{n}.mlp.", f"block.{n}.mlp.")
    return tensors, {"blocks": blocks, **_heads(config, config.needed("attn_config", said))}


def _reverse_residual(
    state: State, config: SpdConfig, parts: Mapping[str, Part]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    groups, attention = _groups(config, list(parts)), config.network.get("transition_attn_config")
    tensors: dict[str, Tensor] = {}
    for n, name in enumerate(map(dashed, groups)):
        at, last = f"group.{n}.", n == len(groups) - 1
        tensors |= _perceptron(state, f"{_GLOBAL}_inp_projectors.{name}.", f"{at}input.")
        tensors |= _perceptron(state, f"{_GLOBAL}_readers.{name}.", f"{at}reader.")
        tensors[f"{at}reader_norm"] = state[f"{_GLOBAL}_reader_norms.{name}.weight"]
        if not last:
            tensors |= _perceptron(state, f"{_GLOBAL}_transitions.{name}.", f"{at}transition.")
            tensors[f"{at}transition_norm"] = state[f"{_GLOBAL}_transition_norms.{name}.weight"]
        if not last and attention is not None:
            tensors |= _attention(state, f"{_GLOBAL}_attn_transitions.{name}.", f"{at}attn.")
            tensors[f"{at}attn_norm"] = state[f"{_GLOBAL}_attn_norms.{name}.weight"]
    heads = {"heads": None, "rope_base": None} if attention is None else _heads(config, attention)
    return tensors, {"groups": [[parts[path].site for path in paths] for paths in groups.values()], **heads}


def _heads(config: SpdConfig, said: Mapping[str, Any]) -> dict[str, Any]:
    return {"heads": int(config.needed("n_heads", said)), "rope_base": float(said.get("rope_base", 10000.0))}


def _groups(config: SpdConfig, paths: Sequence[str]) -> dict[str, list[str]]:
    """The modules of each group, as its patterns meet them."""
    groups = {
        str(config.needed("name", group)): [
            path for pattern in config.needed("patterns", group) for path in paths if fnmatch(path, pattern)
        ]
        for group in config.needed("block_groups")
    }
    if sorted(path for group in groups.values() for path in group) != sorted(paths):
        raise FileFormatError(f"{config.file}: its block_groups do not hold every decomposed module once.")
    return groups


def _perceptron(state: State, prefix: str, renamed: str) -> dict[str, Tensor]:
    """The layers of one network: numbered by twos, or one alone without a number."""
    if f"{prefix}W" in state:
        return {f"{renamed}0.{end}": state[f"{prefix}{end}"] for end in ("W", "b")}
    count = 1
    while f"{prefix}{2 * count}.W" in state:
        count += 1
    return {f"{renamed}{n}.{end}": state[f"{prefix}{2 * n}.{end}"] for n in range(count) for end in ("W", "b")}


def _attention(state: State, prefix: str, renamed: str) -> dict[str, Tensor]:
    return {f"{renamed}{end}": state[f"{prefix}{name}.weight"] for name, end in _ENDS.items()}
