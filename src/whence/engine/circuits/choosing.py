"""The sites of a circuit, from what a user names: dictionaries, and units of the model's own.

    a set of SAEs             their site, every layer they cover
    a set of transcoders      the MLPs they stand for
    "attn.head"               heads, where they are side by side before the output map
    "mlp.neuron"              neurons, before the MLP's last map
    "attn", "mlp"             whole sublayers
    "embed"                   token embeddings as whole vectors; there anyway unless a dictionary is

Cost: two forward passes of a few tokens. Knows nothing of batches.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from whence.components.dictionaries import Dictionary
from whence.components.sae import SAE
from whence.components.sets import DictionarySet, as_dictionary_set
from whence.components.sites import place_name
from whence.components.transcoder import Transcoder
from whence.engine.circuits.block_units import BlockUnits
from whence.engine.circuits.feature_units import FeatureUnits
from whence.engine.circuits.network import CircuitSite, Network
from whence.errors import UnsupportedModelError
from whence.model.linear import width_into
from whence.model.model import Model
from whence.model.sublayers import Depth, Sublayer, sublayers_of

NATIVE = ("attn.head", "mlp.neuron", "attn", "mlp", "embed")


def network_of(model: Model, dictionaries: Any) -> Network:
    """The model with the sites that are meant.

    Args:
        model: the model.
        dictionaries: a dictionary, a set of them, one of the names above, or several of these.

    Raises:
        TypeError: something else.
        ValueError: two for one place, or a layer the model lacks.
        UnsupportedModelError: a model that is no sum of sublayers.
    """
    layout = model.layout
    sublayers = sublayers_of(layout, model._embedded_tokens())
    stages = tuple(tuple(group) for _, group in groupby(sublayers, lambda one: (one.layer, one.stage)))
    chooser = _Chooser(model, stages)
    named, sets = _sorted_out(dictionaries)
    for name in named:
        chooser.native(name)
    for found in sets:
        found.check_fits(model.d_model, model.n_layers)
        for one in found.to(model.device):
            chooser.dictionary(one)
    if 0 not in chooser.points:
        chooser.embedding()
    return Network(layout, stages, chooser.ordered())


def describe(dictionaries: Any) -> list[Any]:
    """What a result records of the dictionaries: names, and each set's description."""
    named, sets = _sorted_out(dictionaries)
    return [*named, *(found.describe() for found in sets)]


def _sorted_out(given: Any) -> tuple[list[str], list[DictionarySet]]:
    """Names and sets among what was given."""
    several: list[Any] = (
        [given] if isinstance(given, str | DictionarySet | SAE | Transcoder) else list(_iterable(given))
    )
    named = [one for one in several if isinstance(one, str)]
    unknown = next((name for name in named if name not in NATIVE), None)
    if unknown is not None:
        raise ValueError(f"dictionaries= names {unknown!r}; units of the model's own are {', '.join(NATIVE)}")
    loose = [one for one in several if isinstance(one, SAE | Transcoder)]
    key = lambda one: (one.kind, one.reads, one.writes, one.b_dec.shape)  # noqa: E731
    sets = [as_dictionary_set(list(group)) for _, group in groupby(sorted(loose, key=lambda o: str(key(o))), key)]
    sets += [as_dictionary_set(one) for one in several if not isinstance(one, str | SAE | Transcoder)]
    return named, sets


def _iterable(given: Any) -> Iterable[Any]:
    if isinstance(given, Iterable):
        return given
    raise TypeError(
        f"dictionaries= is {type(given).__name__}; it takes dictionaries, sets of them as whence.load_dictionary "
        f"reads them, and the names {', '.join(NATIVE)}"
    )


class _Chooser:
    """Sites, each place taken once."""

    def __init__(self, model: Model, stages: Sequence[Sequence[Sublayer]]) -> None:
        self.model, self.stages = model, stages
        self.points: dict[int, CircuitSite] = {}
        self.sublayers: dict[Sublayer, CircuitSite] = {}

    def ordered(self) -> tuple[CircuitSite, ...]:
        """In the order of the forward pass: a point of the stream, then what reads it."""
        sites = [*self.points.values(), *self.sublayers.values()]
        return tuple(sorted(sites, key=lambda site: (site.point, site.sublayer is not None)))

    def native(self, name: str) -> None:
        if name == "embed":
            self.embedding()
            return
        kind = name.partition(".")[0]
        found = [(at, sub) for at, stage in enumerate(self.stages) for sub in stage if sub.kind == kind]
        if not found:
            raise ValueError(f"{self.model.name} has no {kind} sublayer, so there are no units {name!r}")
        for point, sublayer in found:
            self._native_site(name, point, sublayer)

    def _native_site(self, name: str, point: int, sublayer: Sublayer) -> None:
        if name in ("attn", "mlp"):
            whole = BlockUnits(1, self.model.d_model)
            self._take(CircuitSite(name, sublayer.layer, whole, point, sublayer, "normed"))
            return
        if sublayer.write is None:
            raise UnsupportedModelError(
                f"{sublayer.key} is a mixture of experts, so it has no one set of neurons; take the whole of it, 'mlp'"
            )
        width = width_into(sublayer.write, sublayer.key)
        blocks = (sublayer.heads or 1) if name == "attn.head" else width
        units = BlockUnits(blocks, width, name.rpartition(".")[2])
        self._take(CircuitSite(name.partition(".")[0], sublayer.layer, units, point, sublayer, "inside"))

    def embedding(self) -> None:
        whole = BlockUnits(1, self.model.d_model)
        self._take(CircuitSite("embed", None, whole, 0, embedding=self.model.layout.position is not None))

    def dictionary(self, one: Dictionary) -> None:
        if isinstance(one, Transcoder):
            self._transcoder(one)
        elif isinstance(one, SAE):
            self._sae(one)
        else:
            raise ValueError(
                f"a {one.kind} writes at several layers, and a feature circuit asks for one place a feature; "
                "attribution_graph takes it, or pass transcoders or SAEs here"
            )

    def _transcoder(self, one: Transcoder) -> None:
        units = FeatureUnits(one.encoder_of(one.layer), one.W_dec, one.b_dec, one.skip_of(one.layer), False)
        point, sublayer = self._sublayer(one.layer, "mlp")
        depth: Depth = "normed" if one.writes.endswith("_normed") else "out"
        self._take(CircuitSite("mlp", one.layer, units, point, sublayer, depth, reads=one.reads))

    def _sae(self, one: SAE) -> None:
        units, site = FeatureUnits(one.encoder_of(one.layer), one.W_dec, one.b_dec), one.site
        if site == "embed":
            positions = self.model.layout.position is not None
            self._take(CircuitSite("embed", 0, units, 0, embedding=positions))
        elif site.startswith("resid"):
            self._take(CircuitSite(site, one.layer, units, self._point(site, one.layer)))
        else:
            point, sublayer = self._sublayer(one.layer, site.partition("_")[0])
            depth: Depth = "inside" if site == "attn_z" else "normed" if site.endswith("_normed") else "out"
            self._take(CircuitSite(place_name(site), one.layer, units, point, sublayer, depth))

    def _point(self, site: str, layer: int) -> int:
        first = next(at for at, stage in enumerate(self.stages) if stage[0].layer == layer)
        count = sum(stage[0].layer == layer for stage in self.stages)
        if site == "resid_mid" and count != 2:
            raise ValueError(
                f"block {layer} has no middle of its stream: its sublayers read in parallel; use resid_pre or "
                "resid_post"
            )
        return first + {"resid_pre": 0, "resid_mid": 1, "resid_post": count}[site]

    def _sublayer(self, layer: int, kind: str) -> tuple[int, Sublayer]:
        for at, stage in enumerate(self.stages):
            for sublayer in stage:
                if (sublayer.layer, sublayer.kind) == (layer, kind):
                    return at, sublayer
        raise ValueError(f"layer {layer} of {self.model.name} has no {kind}, which a dictionary was given for")

    def _take(self, site: CircuitSite) -> None:
        taken: dict[Any, CircuitSite] = self.points if site.sublayer is None else self.sublayers
        place = site.point if site.sublayer is None else site.sublayer
        if place in taken:
            raise ValueError(
                f"{_named(site)} and {_named(taken[place])} are units of one place of the model, or of two depths of "
                "one sublayer, which a circuit splits in one way: give one of them"
            )
        taken[place] = site


def _named(site: CircuitSite) -> str:
    """A site with what its units are: `0.attn.head`."""
    end = site.units.name(0)[0]
    return f"{site.key}.{end}" if end else site.key
