"""How well dictionaries stand in for what they rebuild, on a prompt.

    FVU   Σ|y − ŷ|² / Σ|y − ȳ|², the share of the variance missed        L0   features active at a position, on average

ȳ is the mean over positions. Position 0 is left out, where most models keep an activation many times larger than any
other's. Cost: one forward pass, and one pass over the encoders.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.encoder import Active
from whence.components.sets import DictionarySet
from whence.engine.dictionary_values import what_is_read, what_is_written
from whence.engine.placing import writer_of
from whence.engine.reading import stream_after
from whence.model.layout import Writer
from whence.model.model import Model
from whence.model.recorder import record
from whence.model.trace import Trace, Wanted

_STREAM = {"resid_pre": -1, "resid_post": 0, "embed": None}  # after which layer, counted from the dictionary's


@dataclass(frozen=True, slots=True)
class LayerFit:
    """How well what is written at one layer is rebuilt; `l0` is of the features that read it."""

    layer: int
    fvu: float
    l0: float


@torch.no_grad()
def fit_on(model: Model, dictionaries: DictionarySet, prompt: Any) -> tuple[LayerFit, ...]:
    """The fit of each layer that is read.

    Args:
        model: The model they are for.
        dictionaries: A set.
        prompt: One prompt, as text or token ids.

    Raises:
        ValueError: The set does not fit the model, or the prompt has fewer than three tokens.

    Example:
        >>> from whence.components.loading import load_dictionary
        >>> from whence.demo import PROMPT, dictionary_path, model_path
        >>> model = Model.from_pretrained(model_path())
        >>> fit_on(model, load_dictionary(dictionary_path("transcoders")), PROMPT)[0].l0
        8.0
    """
    dictionaries.check_fits(model.d_model, model.n_layers)
    values = _Values(model, dictionaries, prompt)
    active: dict[int, Active] = {}
    fits: list[LayerFit] = []
    for layer in dictionaries.layers:
        x, y = values.read(layer), values.written(layer)
        active[layer] = dictionaries.active(layer, x)
        missed = (y - _rebuilt(dictionaries, active, layer, x)).square().sum()
        variance = (y - y.mean(0)).square().sum()
        fits.append(LayerFit(layer, float(missed / variance), len(active[layer]) / len(x)))
    return tuple(fits)


def _rebuilt(dictionaries: DictionarySet, active: dict[int, Active], at: int, x: Tensor) -> Float[Tensor, "pos d"]:
    """What is written at a layer, from the features that are active."""
    skip, bias = dictionaries.skip(at), dictionaries.decoder_bias(at).to(x)
    total = bias.expand(len(x), -1).clone() if skip is None else bias + x @ skip.to(x).T
    for layer, found in active.items():
        if at in dictionaries.written(layer):
            rows = dictionaries.decoder(layer, found.feature, at).to(x)
            total.index_add_(0, found.position, found.activation[:, None].to(x) * rows)
    return total


class _Values:
    """What the model said at the set's sites, without position 0."""

    def __init__(self, model: Model, dictionaries: DictionarySet, prompt: Any) -> None:
        self.set, self.dtype = dictionaries, model.accumulation
        batch = model.batch(prompt)
        if len(batch.ids) != 1 or batch.ids.shape[1] < 3:
            raise ValueError(f"prompt has {tuple(batch.ids.shape)} tokens; give one prompt of at least three tokens.")
        self.writers: dict[int, Writer] = {}
        if dictionaries.reads not in _STREAM:
            self.writers = {layer: writer_of(model.layout, dictionaries[layer], layer) for layer in dictionaries.layers}
        norms = frozenset(writer.norm for writer in self.writers.values() if writer.norm is not None)
        streams = frozenset(
            after for layer in dictionaries.layers if (after := self._after(layer)) is not None and after >= 0
        )
        wanted = Wanted(sublayers=True, streams=streams, around=norms)
        self.trace: Trace = record(model.layout, batch, batch.rows(None), wanted=wanted)
        self.writes = {write.writer: write for write in self.trace.writes}

    def read(self, layer: int) -> Float[Tensor, "pos d"]:
        """What the dictionary of a layer is given."""
        if layer not in self.writers:
            return stream_after(self.trace, self._after(layer))[0, 1:].to(self.dtype)
        return what_is_read(self.set.reads, self.writes[self.writers[layer]], self.trace.around)[0, 1:].to(self.dtype)

    def written(self, layer: int) -> Float[Tensor, "pos d"]:
        """What the dictionary of a layer is to rebuild."""
        if self.set.kind == "sae":
            return self.read(layer)
        return what_is_written(self.set.writes, self.writes[self.writers[layer]])[0, 1:].to(self.dtype)

    def _after(self, layer: int) -> int | None:
        step = _STREAM.get(self.set.reads)
        return None if step is None else layer + step
