"""Parameter components at the matrices that they decompose.

    token embedding = scale · W[id]        the stream before the first block = factor · token embedding (+ positions)

Scale and factor are measured (Gemma has the first, Granite the second); where there are no such numbers (a norm, a
projection) the embedding matrix cannot be decomposed. Cost: for that, one forward pass of a few tokens.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from whence.components.parameters import ParameterComponents, Part
from whence.engine.dataset.matrix_site import MatrixSite
from whence.engine.dataset.places import Places
from whence.engine.dataset.rotations import TOLERANCE
from whence.engine.dataset.sites import FIRST, Elsewhere, Inner, Inside, StreamWrite
from whence.engine.dataset.tape import Tape
from whence.errors import UnsupportedModelError
from whence.model.hooks import hooked
from whence.model.linear import width_into, width_out_of
from whence.model.matrices import LinearMap, matrix_at
from whence.model.recorder import run
from whence.model.selfcheck import few_tokens
from whence.model.sites import Change, Spot, as_hooks

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
        UnsupportedModelError: a matrix that the model lacks, or an embedding matrix that is more than scaled.
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
    scale, factor = _embedded(places, one)
    scaled, write = replace(part, U=part.U * scale), StreamWrite(FIRST, factor=factor)
    places.take(part.site, part.site, FIRST, MatrixSite(scaled, one, ids, write, None, places.like))


def _embedded(places: Places, one: LinearMap) -> tuple[float, float]:
    """By what the rows of the embedding matrix are multiplied in its module, and by what after it.

    Raises:
        UnsupportedModelError: more than that is done to them.
    """
    layout, seen = places.layout, dict[str, Tensor]()
    batch = few_tokens(layout, places.model._embedded_tokens())
    tape = Tape(batch.ids.shape[1], places.like.dtype)
    spots = {"token": Spot(one.module, before=False), "stream": Spot(layout.blocks[0], before=True)}
    if layout.position is not None:
        spots["position"] = Spot(layout.position, before=False)

    def keep(name: str) -> Change:
        return lambda tensor: seen.update({name: tape.of(tensor)})

    with layout.lock, torch.no_grad(), hooked(*as_hooks([spot.hook(keep(name)) for name, spot in spots.items()])):
        run(layout, batch)
    rows = one.module.get_parameter("weight").detach()[batch.ids].to(places.like)
    scale = _multiple(places, rows, seen["token"])
    return scale, _multiple(places, seen["token"], seen["stream"] - seen.get("position", 0.0))


def _multiple(places: Places, given: Tensor, made: Tensor) -> float:
    """The c with made = c · given.

    Raises:
        UnsupportedModelError: there is none.
    """
    tolerance = TOLERANCE.get(places.layout.hf.dtype, TOLERANCE[torch.bfloat16])
    if made.shape == given.shape:
        multiple = float((made * given).sum() / given.square().sum())
        if float((made - multiple * given).abs().max()) <= tolerance * float(made.abs().max()):
            return multiple
    raise UnsupportedModelError(
        f"{places.model.name} does more to its token embeddings than scale them (a norm or a projection), so "
        "embed.matrix cannot be decomposed here; leave it out of the components, and each token is a source"
    )


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
