"""Parameter components at the matrices that they decompose."""

from collections.abc import Mapping

from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.places import Places
from whence.engine.dataset.sites import FIRST, Elsewhere, Inner, Inside, StreamWrite
from whence.model.linear import width_into, width_out_of
from whence.model.matrices import LinearMap, matrix_at

_ENDS: Mapping[str, Inner] = {
    "attn.q": "q",
    "attn.k": "k",
    "attn.v": "v",
    "attn_fused.qkv": "qkv",
    "glu.gate": "gate",
    "glu.up": "up",
    "mlp.up": "up",
}


def place_matrices(places: Places, parameters: ParameterComponents) -> None:
    """A site for every decomposed matrix.

    Raises:
        UnsupportedModelError: a matrix that the model lacks.
        ValueError: one of another size.
    """
    found = {part.site: matrix_at(places.layout, part.site) for part in parameters}
    parameters.check_fits({site: _size(one) for site, one in found.items()})
    for part in parameters:
        one = found[part.site]
        if one.layer is None:
            _at_an_end(places, part, one)
        else:
            _in_a_sublayer(places, part, one)


def _size(one: LinearMap) -> tuple[int, int]:
    """(in, out); of the embedding (vocabulary, width)."""
    if one.site == "embed.matrix":
        count, width = one.module.get_parameter("weight").shape
        return count, width
    return width_into(one.module, one.site), width_out_of(one.module, one.site)


def _at_an_end(places: Places, part: Part, one: LinearMap) -> None:
    if part.site == "output.matrix":
        reads = places.final()
        places.take(part.site, part.site, reads.time, MatrixSite(part, one, reads, None, None, places.like))
        return
    ids = Elsewhere(FIRST, places.sublayers[0])  # read by nobody: its components are sources only
    places.take(part.site, part.site, FIRST, MatrixSite(part, one, ids, StreamWrite(FIRST), None, places.like))


def _in_a_sublayer(places: Places, part: Part, one: LinearMap) -> None:
    sublayer = places.sublayer(one.layer, "attn" if one.name.startswith("attn") else "mlp")
    entry = places.entry(sublayer)
    if one.name in _ENDS:
        end = _ENDS[one.name]
        site = MatrixSite(part, one, entry, Inside(sublayer, end), None, places.like)
        places.take((sublayer, end), part.site, entry.time, site)
        return
    exit_ = places.exit(sublayer, "write")
    given = Inside(sublayer, "z" if sublayer.kind == "attn" else "hidden")
    places.take(sublayer, part.site, exit_.time, MatrixSite(part, one, given, exit_, sublayer, places.like))
