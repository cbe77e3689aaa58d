"""The sites of a run, from what a user names: decomposed matrices, dictionaries, units of the model's own.

Token embeddings and logits are always sites. What is not named is live: edges run through it. Each place is taken
once. Cost: a few forward passes of a few tokens. Knows nothing of data.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from whence.engine.dataset.ends import EmbeddingSite, OutputSite
from whence.engine.dataset.named import Given
from whence.engine.dataset.place_dictionaries import place_dictionary
from whence.engine.dataset.place_matrices import place_matrices
from whence.engine.dataset.place_units import place_units
from whence.engine.dataset.places import Places
from whence.engine.dataset.sites import FIRST, Site
from whence.model.matrices import matrices
from whence.model.model import Model
from whence.model.sublayers import Sublayer


@dataclass(frozen=True, eq=False)
class Chosen:
    """The sites of a run, and the sublayers that they stand among.

    Args:
        sites: in the order of the forward pass.
        entries: when each sublayer of the model reads the stream.
        gated: the MLPs that have a gate.
    """

    sites: tuple[Site, ...]
    entries: Mapping[Sublayer, int]
    gated: frozenset[Sublayer]


def sites_of(model: Model, given: Given, seen: Int[Tensor, " token"], output_tokens: Int[Tensor, " output"]) -> Chosen:
    """The sites of a run.

    Args:
        model: the model.
        given: what was named.
        seen: token ids that occur in the data.
        output_tokens: tokens whose logits are targets of every metric.

    Raises:
        ValueError: two for one place, or something of another size or layer than the model's.
        UnsupportedModelError: a model that is no sum of sublayers, or lacks a matrix.
    """
    places = Places(model)
    if given.parameters is not None:
        place_matrices(places, given.parameters)
    for found in given.sets:
        found.check_fits(model.d_model, model.n_layers)
        for one in found.to(model.device):
            place_dictionary(places, one)
    for name in given.names:
        place_units(places, name, given.heads)
    _ends(places, seen.to(model.device), output_tokens.to(model.device))
    sites = tuple(site for _, site in sorted(places.sites, key=lambda pair: pair[0]))
    entries = {one: places.entry(one).time for one in places.sublayers}
    return Chosen(sites, entries, _gated(places))


def _gated(places: Places) -> frozenset[Sublayer]:
    layers = {one.layer for one in matrices(places.layout).values() if one.name == "glu.gate"}
    return frozenset(one for one in places.sublayers if one.kind == "mlp" and one.layer in layers)


def _ends(places: Places, seen: Tensor, tokens: Tensor) -> None:
    """Token embeddings and logits."""
    model, bias = places.model, places.model.unembedding_bias(tokens).to(places.like)
    embedding = EmbeddingSite(places.layout, seen, "embed.matrix" not in places.taken)
    output = OutputSite(
        places.layout,
        places.final(),
        tokens,
        model.unembedding(tokens).to(places.like),
        bias if bool(bias.any()) else None,
        model.vocab_size,
        model.d_model,
        "output.matrix" not in places.taken,
    )
    places.take("embed", "embed", FIRST, embedding)
    places.take("output", "output", 4 * places.end + 3, output)
