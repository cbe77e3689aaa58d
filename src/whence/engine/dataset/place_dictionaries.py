"""Dictionaries at the places that they read and write."""

from torch import Tensor

from whence.components.dictionaries import Dictionary
from whence.components.lazy import whole
from whence.components.sae import SAE
from whence.components.sites import place_name
from whence.components.transcoder import Transcoder
from whence.engine.dataset.feature_site import FeatureSite
from whence.engine.dataset.places import Places
from whence.engine.dataset.sites import Depth, Elsewhere, Inside, StreamRead, StreamWrite
from whence.model.linear import constant_of, matrix_of
from whence.model.sites import Site, Spot, read_site, site_of
from whence.model.sublayers import Sublayer


def place_dictionary(places: Places, one: Dictionary) -> None:
    """A site for a dictionary's features.

    Raises:
        ValueError: a cross-layer transcoder, an SAE of the embeddings, a place that the model lacks or that is taken.
    """
    if isinstance(one, Transcoder):
        _transcoder(places, one)
    elif not isinstance(one, SAE):
        raise ValueError(
            f"a {one.kind} writes at several layers, and dataset attributions ask for one place a feature; "
            "attribution_graph takes it, or pass transcoders or SAEs here"
        )
    elif one.site == "embed":
        raise ValueError("an SAE of the embeddings has no place beside token embeddings, which are sources; drop it")
    elif one.site.startswith("resid"):
        _stream_sae(places, one)
    else:
        _sublayer_sae(places, one)


def _transcoder(places: Places, one: Transcoder) -> None:
    sublayer, reads = places.sublayer(one.layer, "mlp"), read_site(places.layout, one.reads, one.layer)
    where: StreamRead | Elsewhere = places.entry(sublayer)
    if one.reads == "resid_mid":
        where = StreamRead(where.time)
    elif one.reads != "mlp_in":
        where = Elsewhere(where.time, sublayer)
    _features(places, one, f"{one.layer}.mlp", where, reads, sublayer)


def _stream_sae(places: Places, one: SAE) -> None:
    """An SAE of the whole stream, which it cuts."""
    place, site = f"{one.layer}.{place_name(one.site)}", site_of(places.layout, one.site, one.layer)
    if one.site == "resid_mid":
        site = _middle(places, one.layer)
    depths = sorted({places.depth[sub] for sub in places.sublayers if sub.layer == one.layer})
    depth = {"resid_pre": depths[0], "resid_mid": depths[-1], "resid_post": depths[-1] + 1}[one.site]
    read, write = StreamRead(4 * depth), StreamWrite(4 * depth + 1, cuts=True)
    U, bias = whole(one.W_dec).to(places.like), one.b_dec.to(places.like)
    found = FeatureSite(place, one.encoder_of(one.layer), U, bias, site, site, read, write, None)
    places.take(read.time, place, read.time, found)


def _middle(places: Places, layer: int) -> Site:
    """The middle of a block, met behind everything that stands within its first sublayer."""
    first = next(sub for sub in places.sublayers if sub.layer == layer)

    def read(output: Tensor, stream: Tensor) -> Tensor:
        return stream + first.factor * output.reshape(stream.shape)

    return Site(first.spot("normed"), Spot(places.layout.blocks[layer], before=True), read, 1 / first.factor)


def _sublayer_sae(places: Places, one: SAE) -> None:
    sublayer = places.sublayer(one.layer, one.site.partition("_")[0])
    if one.site == "attn_z":
        where: Inside | Elsewhere = Inside(sublayer, "z")
    else:
        where = Elsewhere(places.entry(sublayer).time, sublayer)
    read = site_of(places.layout, one.site, one.layer)
    _features(places, one, f"{one.layer}.{place_name(one.site)}", where, read, sublayer)


def _features(
    places: Places,
    one: Transcoder | SAE,
    place: str,
    where: StreamRead | Inside | Elsewhere,
    read: Site,
    sublayer: Sublayer,
) -> None:
    """A dictionary that stands for what a sublayer writes."""
    exit_ = places.exit(sublayer, _depth(one))
    writes = site_of(places.layout, "attn_out" if one.writes == "attn_z" else one.writes, one.layer)
    U, bias = _written(places, one, sublayer)
    found = FeatureSite(place, one.encoder_of(one.layer), U, bias, read, writes, where, exit_, sublayer)
    places.take(sublayer, place, exit_.time, found)


def _written(places: Places, one: Transcoder | SAE, sublayer: Sublayer) -> tuple[Tensor, Tensor]:
    """What features and their bias write; heads' outputs go through the output map first."""
    U, bias = whole(one.W_dec).to(places.like), one.b_dec.to(places.like)
    if one.writes != "attn_z":
        return U, bias
    assert sublayer.write is not None
    weight = matrix_of(sublayer.write, places.model.d_model, U.shape[1], places.like)
    own = constant_of(sublayer.write, U.shape[1], places.like)
    return U @ weight.T, bias @ weight.T + (0.0 if own is None else own)


def _depth(one: Transcoder | SAE) -> Depth:
    """How far on the way out of its sublayer a dictionary writes."""
    if one.writes.endswith("_normed"):
        return "normed"
    return "out" if one.writes == "mlp_out" else "write"
