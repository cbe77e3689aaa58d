"""sparsify: a folder a hookpoint, with `cfg.json` and `sae.safetensors`.

    encoder.weight [f, d]  encoder.bias  W_dec [f, d]  b_dec  [W_skip: x @ W_skip.T]

The folder's name is the module: `layers.5` (its output), `layers.5.mlp`. With `transcode` the features stand for the
module: they read its input and write its output. Else they rebuild its output, and read it less b_dec.
"""

from pathlib import Path

from whence.components.activation import Activation
from whence.components.dictionaries import Dictionary
from whence.components.formats.hints import Hints
from whence.components.formats.hooks import both_sides, place_of_hook
from whence.components.formats.parts import Parts
from whence.components.formats.tensors import TensorFile, read_json
from whence.errors import FileFormatError

_WEIGHTS, _CONFIG = "sae.safetensors", "cfg.json"
_ACTIVATIONS = ("topk", "groupmax")


def recognises(path: Path) -> bool:
    """Whether there is such a pair of files, at any depth."""
    return bool(_folders(path))


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a folder and those below it.

    Raises:
        FileFormatError: An activation or hookpoint that is not known.
    """
    return [_dictionary(folder) for folder in _folders(path)]


def _folders(path: Path) -> list[Path]:
    return [file.parent for file in sorted(path.rglob(_WEIGHTS)) if file.with_name(_CONFIG).is_file()]


def _dictionary(folder: Path) -> Dictionary:
    config, stored = read_json(folder / _CONFIG), TensorFile(folder / _WEIGHTS)
    kind = config.get("activation", "topk")
    if kind not in _ACTIVATIONS or config.get("signed") or not isinstance(config.get("k"), int):
        raise FileFormatError(
            f"{folder / _CONFIG}: activation {kind!r} with k={config.get('k')}, signed={bool(config.get('signed'))} is "
            f"not known. Known: {', '.join(_ACTIVATIONS)} with a k and without a sign."
        )
    parts = Parts(
        W_enc=stored.matrix("encoder.weight"),
        b_enc=stored.vector("encoder.bias"),
        W_dec=stored.matrix("W_dec"),
        b_dec=stored.vector("b_dec"),
        activation=Activation(kind, k=config["k"]),
        skip=stored.optional("W_skip"),
    )
    if config.get("transcode"):
        return parts.placed(*both_sides(folder.name))
    layer, site = place_of_hook(folder.name)
    return parts.reading_less(parts.b_dec).placed(layer, site, site)
