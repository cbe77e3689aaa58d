"""Features of dictionaries, and what dictionaries miss, as places.

A feature is *set*: with a its activation in this very pass, encoded from what its dictionary reads, new - a units of it
are added wherever it writes, (new - a) * decoder. The error is the value at the write site less everything the
dictionary makes of this pass's readings. Where a layer's sublayer is held, its features and error are those of the
clean pass, since that is what was held. Cost: one encoding of the tokens concerned for each node.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whence.components.sets import DictionarySet
from whence.interventions.lines import lines_at, mask_of
from whence.interventions.seat import Seat
from whence.model.layout import Layout
from whence.model.sites import Hook, Site, read_site, site_of
from whence.results.keys import Node


@dataclass(eq=False)
class FeaturePlace:
    """One feature's activation, or only for looking its pre-activation."""

    dictionary: DictionarySet
    layer: int
    feature: int
    reads: Site
    writes: dict[int, Site]
    before_activation: bool = False
    _clean: Tensor | None = None

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """A hook that reads, and one at each layer the feature writes at."""
        seen: dict[str, Tensor] = {}
        step: dict[str, Tensor] = {}

        def look(tensor: Tensor) -> None:
            step.clear()
            mask = mask_of(seat, tensor)
            if not mask.any():
                return
            now = self._now(seat, lines_at(self.reads, tensor, mask, seen))
            new = None if seat.idle else seat.swap(now, mask)
            if new is not None:
                step["delta"] = (new - now).to(now)

        writing = [site.spot.hook(self._adder(seat, site, at, step)) for at, site in self.writes.items()]
        return [*self.reads.captures(seen), self.reads.spot.hook(look)], writing

    def _now(self, seat: Seat, x: Tensor) -> Tensor:
        if self.before_activation:
            rows, bias = self.dictionary.encoder(self.layer, torch.tensor([self.feature], device=x.device))
            wide = torch.promote_types(x.dtype, rows.dtype)
            return x.to(wide) @ rows[0].to(wide) + bias[0]
        if seat.run.clean or seat.looks or self.layer not in seat.run.held or self._clean is None:
            now = activation_of(self.dictionary, self.layer, self.feature, x)
            self._clean = now if seat.run.clean else self._clean
            return now
        return self._clean

    def _adder(self, seat: Seat, site: Site, at: int, step: dict[str, Tensor]) -> Any:
        def add(tensor: Tensor) -> Tensor | None:
            if "delta" not in step:
                return None
            row = self.dictionary.decoder(self.layer, torch.tensor([self.feature], device=tensor.device), at)
            return site.stepped(tensor, mask_of(seat, tensor), step["delta"][:, None] * row)

        return add


@dataclass(eq=False)
class ErrorPlace:
    """What a dictionary misses of the value at its write site."""

    dictionary: DictionarySet
    layer: int
    reads: dict[int, Site]  # by layer, of all that write here
    writes: Site
    _clean: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def hooks(self, seat: Seat) -> tuple[list[Hook], list[Hook]]:
        """A hook for each layer read, and two where the error lies: it is read before any feature is set there."""
        made: dict[int, Tensor] = {}
        looking: list[Hook] = []
        for layer, site in self.reads.items():
            seen: dict[str, Tensor] = {}
            looking += [*site.captures(seen), site.spot.hook(self._reader(seat, layer, site, seen, made))]
        base: dict[str, Tensor] = {}
        step: dict[str, Tensor] = {}

        def look(tensor: Tensor) -> None:
            step.clear()
            mask = mask_of(seat, tensor)
            if seat.idle or not mask.any():
                return
            lines = lines_at(self.writes, tensor, mask, base)
            error = lines - torch.stack([made[layer] for layer in self.reads]).sum(0).to(lines)
            if self.layer in self.dictionary.layers:  # a layer that is only written has no bias
                error = error - self.dictionary.decoder_bias(self.layer).to(lines)
            new = seat.swap(error, mask)
            if new is not None:
                step["delta"] = new.to(error) - error

        def change(tensor: Tensor) -> Tensor | None:
            return self.writes.stepped(tensor, mask_of(seat, tensor), step["delta"]) if "delta" in step else None

        looking += [*self.writes.captures(base), self.writes.spot.hook(look)]
        return looking, [self.writes.spot.hook(change)]

    def _reader(self, seat: Seat, layer: int, site: Site, seen: dict[str, Tensor], made: dict[int, Tensor]) -> Any:
        def look(tensor: Tensor) -> None:
            mask = mask_of(seat, tensor)
            if not mask.any():
                return
            if layer in seat.run.held and not (seat.run.clean or seat.looks) and layer in self._clean:
                made[layer] = self._clean[layer]
                return
            made[layer] = reconstruction(self.dictionary, layer, lines_at(site, tensor, mask, seen), self.layer)
            if seat.run.clean:
                self._clean[layer] = made[layer]

        return look


@torch.no_grad()
def activation_of(dictionary: DictionarySet, layer: int, feature: int, x: Tensor) -> Tensor:
    """A feature's activation at each line."""
    active = dictionary.active(layer, x)
    chosen = active.feature == feature
    values = active.activation.new_zeros(len(x))
    values[active.position[chosen]] = active.activation[chosen]
    return values


@torch.no_grad()
def reconstruction(dictionary: DictionarySet, layer: int, x: Tensor, at: int) -> Tensor:
    """What the features of a layer, and its skip, write at layer `at` for each line read."""
    active = dictionary.active(layer, x)
    rows = dictionary.decoder(layer, active.feature, at).to(active.activation)
    out = rows.new_zeros(len(x), rows.shape[-1]).index_add(0, active.position, active.activation[:, None] * rows)
    skip = dictionary.skip(layer) if layer == at else None
    return out if skip is None else out + x.to(out) @ skip.T.to(out)


def dictionary_place(layout: Layout, dictionary: DictionarySet | None, node: Node) -> FeaturePlace | ErrorPlace:
    """Where a feature or an error lies.

    Raises:
        ValueError: no dictionary, one of another site, or a layer or feature it lacks.
    """
    layer = -1 if node.layer is None else node.layer
    if dictionary is None:
        raise ValueError(f"{node} belongs to a dictionary that was not given; pass it as dictionary=")
    place, _, part = node.name.rpartition(".")
    reaches = {at for source in dictionary.layers for at in dictionary.written(source)}
    has = sorted(reaches) if part == "error" else dictionary.layers
    if layer not in has:
        raise ValueError(f"{node}: the dictionary has no layer {layer}; it has layers {', '.join(map(str, has))}")
    name = dictionary.node(dictionary.layers[0], 0).name
    if place != name.rpartition(".")[0]:
        raise ValueError(f"{node}: the dictionary's features are called {name}; load the dictionary of {place}")
    if part == "error":
        sources = [at for at in dictionary.layers if layer in dictionary.written(at)]
        reads = {at: _reads(layout, dictionary, at) for at in sources}
        return ErrorPlace(dictionary, layer, reads, site_of(layout, dictionary.writes, layer))
    count = dictionary.n_features(layer)
    if not isinstance(node.index, int) or node.index >= count:
        raise ValueError(f"{node}: the dictionary has features 0 to {count - 1} in layer {layer}")
    writes = {at: site_of(layout, dictionary.writes, at) for at in dictionary.written(layer)}
    return FeaturePlace(dictionary, layer, node.index, _reads(layout, dictionary, layer), writes)


def _reads(layout: Layout, dictionary: DictionarySet, layer: int) -> Site:
    """An SAE's site is written before anything behind it is read; a transcoder reads what its MLP is given."""
    same = dictionary.reads == dictionary.writes
    return (site_of if same else read_site)(layout, dictionary.reads, layer)
