"""Gemma Scope: JumpReLU dictionaries in `.npz` files, and Gemma Scope 2 in safetensors with a `config.json` beside.

    *.npz            W_enc [d, f]  W_dec [f, d]  b_enc  b_dec  threshold
    *.safetensors    w_enc [d, f]  w_dec [f, d]  b_enc  b_dec  threshold  [affine_skip_connection [d, d], x @ it]
    params_layer_<i>.safetensors    the same of a cross-layer transcoder, w_dec [f, layer, d] from layer 0

The first do not say where they belong (`hints.py`); their transcoders read `ln2.hook_normalized` and write
`hook_mlp_out`. An npz is read whole.
"""

import json
import re
import zipfile
from pathlib import Path

import torch

from whence.components.activation import Activation
from whence.components.dictionaries import CrossLayerTranscoder, Dictionary
from whence.components.formats.hints import TRANSCODER, Hints
from whence.components.formats.hooks import place_of_hook
from whence.components.formats.parts import Parts, skips
from whence.components.formats.tensors import TensorFile, read_json
from whence.components.sites import SITES, ReadSite, Site
from whence.errors import FileFormatError

_ARRAYS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
_CROSS_LAYER = re.compile(r"params_layer_(\d+)\.safetensors")


def recognises(path: Path) -> bool:
    """Whether there are such files, by their names and the tensors in them."""
    return bool(_files(path))


def load(path: Path, hints: Hints) -> list[Dictionary]:
    """The dictionaries of a file or folder.

    Raises:
        FileFormatError: A file that is damaged, or that does not say its layer or site.
    """
    files = _files(path)
    by_layer = {int(match[1]): file for file in files if (match := _CROSS_LAYER.fullmatch(file.name))}
    if by_layer:
        return [_cross_layer(dict(sorted(by_layer.items())))]
    return [_placed(file, hints) for file in files]


def read_parts(file: Path) -> Parts:
    """The tensors of one file of either generation."""
    return _from_arrays(file) if file.suffix == ".npz" else _from_tensors(TensorFile(file))


def is_second(file: Path) -> bool:
    """Whether a safetensors file is of Gemma Scope 2."""
    return {"w_enc", "w_dec", "threshold"} <= TensorFile(file).names


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [file for file in found if file.suffix == ".npz" or (file.suffix == ".safetensors" and is_second(file))]


def _from_arrays(file: Path) -> Parts:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {name: torch.from_numpy(stored[name]) for name in _ARRAYS}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{file} does not hold the arrays {', '.join(_ARRAYS)}: {error}.") from error
    activation = Activation("jumprelu", threshold=found["threshold"])
    return Parts(found["W_enc"].T, found["b_enc"], found["W_dec"], found["b_dec"], activation)


def _from_tensors(stored: TensorFile) -> Parts:
    skip = stored.optional("affine_skip_connection")
    return Parts(
        W_enc=stored.matrix("w_enc", transposed=True),
        b_enc=stored.vector("b_enc"),
        W_dec=stored.matrix("w_dec"),
        b_dec=stored.vector("b_dec"),
        activation=Activation("jumprelu", threshold=stored.vector("threshold")),
        skip=None if skip is None else skip.T,
    )


def _placed(file: Path, hints: Hints) -> Dictionary:
    config = file.with_name("config.json")
    said = read_json(config) if config.is_file() else {}
    if "hf_hook_point_in" in said:
        layer, reads = place_of_hook(said["hf_hook_point_in"])
        writes = place_of_hook(said.get("hf_hook_point_out") or said["hf_hook_point_in"])[1]
        return read_parts(file).placed(layer, reads, writes)
    site = hints.site_of(file)
    if site == TRANSCODER:
        reads: ReadSite = "mlp_in_normalized" if file.suffix == ".npz" else "mlp_in"
        return read_parts(file).placed(hints.layer_of(file), reads, "mlp_out_normed")
    return read_parts(file).placed(hints.layer_of(file), known_site(site), known_site(site))


def known_site(site: str) -> Site:
    """A site as the caller wrote it.

    Raises:
        ValueError: There is no such site.
    """
    for known in SITES:
        if site == known:
            return known
    raise ValueError(f"site={site!r} is not known. Known: {TRANSCODER}, {', '.join(SITES)}.")


def _cross_layer(files: dict[int, Path]) -> CrossLayerTranscoder:
    first = next(iter(files.values()))
    said = json.dumps(read_json(first.with_name("config.json")))
    if "pre_feedforward_layernorm.output" not in said or "post_feedforward_layernorm.output" not in said:
        raise FileFormatError(
            f"{first.with_name('config.json')} does not say that the transcoder goes from pre_feedforward_layernorm to "
            "post_feedforward_layernorm; no other is known."
        )
    stored = {layer: TensorFile(file) for layer, file in files.items()}
    layers = [_from_tensors(file) for file in stored.values()]
    return CrossLayerTranscoder(
        W_enc=tuple(parts.W_enc for parts in layers),
        b_enc=tuple(parts.b_enc for parts in layers),
        W_dec=tuple(file.matrix("w_dec", first=layer) for layer, file in stored.items()),
        b_dec=tuple(parts.b_dec for parts in layers),
        activation=tuple(parts.activation for parts in layers),
        layers=tuple(stored),
        W_skip=skips([parts.skip for parts in layers]),
        reads="mlp_in",
        writes="mlp_out_normed",
    )
