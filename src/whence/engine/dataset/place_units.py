"""Units of the model's own at their sublayers: heads, neurons, whole sublayers."""

import torch
from jaxtyping import Float
from torch import Tensor

from whence.components.head_reads import HeadReads
from whence.engine.dataset.block_sites import InsideSite, Read, WholeSite
from whence.engine.dataset.places import Places
from whence.engine.dataset.sites import Reading
from whence.errors import UnsupportedModelError
from whence.model.linear import constant_of, matrix_of, width_into, width_out_of
from whence.model.matrices import LinearMap, matrices, matrix_at
from whence.model.sublayers import Sublayer
from whence.results.keys import Node


def place_units(places: Places, name: str, heads: HeadReads) -> None:
    """A site in every sublayer that has such units.

    Args:
        places: of the model.
        name: of `whence.engine.dataset.named.NATIVE`.
        heads: covectors of those that are targets.

    Raises:
        ValueError: a model without such sublayers, or covectors that do not fit it.
        UnsupportedModelError: neurons of experts, or covectors on a fused matrix.
    """
    kind = name.partition(".")[0]
    found = [one for one in places.sublayers if one.kind == kind]
    if not found:
        raise ValueError(f"{places.model.name} has no {kind} sublayer, so there are no units {name!r}")
    asked = _asked(heads, {one.layer for one in found}) if name == "attn.head" else []
    for sublayer in found:
        if name == kind:
            write = places.exit(sublayer, "normed")
            places.take(sublayer, sublayer.key, write.time, WholeSite(sublayer, write, places.model.device))
        else:
            mine = [(node, covector) for node, covector in asked if node.layer == sublayer.layer]
            _inside(places, sublayer, name, mine)


def _asked(heads: HeadReads, layers: set[int]) -> list[tuple[Node, Tensor]]:
    """The heads' inputs with their covectors, ascending.

    Raises:
        ValueError: a layer without attention.
    """
    found = [(Node.parse(key), covector) for key, covector in heads.covectors.items()]
    for node, _ in found:
        if node.layer not in layers:
            raise ValueError(f"HeadReads: {node} is in no layer with attention; those are {sorted(layers)}")
    return sorted(found, key=lambda pair: _head(pair[0]))


def _head(node: Node) -> int:
    assert isinstance(node.index, int)
    return node.index


def _inside(places: Places, sublayer: Sublayer, name: str, asked: list[tuple[Node, Tensor]]) -> None:
    if sublayer.write is None:
        raise UnsupportedModelError(
            f"{sublayer.key} is a mixture of experts, so it has no one set of neurons; take the whole of it, 'mlp'"
        )
    width, write = width_into(sublayer.write, sublayer.key), places.exit(sublayer, "write")
    weight = matrix_of(sublayer.write, places.model.d_model, width, places.like)
    heads = None if name == "mlp.neuron" else sublayer.heads or 1
    reads = _neurons_read(places, sublayer, width) if heads is None else _heads_read(places, sublayer, width, asked)
    site = InsideSite(sublayer, write, tuple(reads), weight, heads)
    places.take(sublayer, f"{sublayer.layer}.{name}", write.time, site)


def _neurons_read(places: Places, sublayer: Sublayer, width: int) -> list[Read]:
    """Pre-activations: of gate and up, where there are both."""
    found: list[Read] = []
    for name, end in (("glu.gate", ".gate"), ("glu.up", ".up"), ("mlp.up", "")):
        one = matrices(places.layout).get(f"{sublayer.layer}.{name}")
        if one is not None:
            V, constant = _rows(places, one, width)
            ids = torch.arange(width, device=places.like.device)
            site = f"{sublayer.layer}.mlp.neuron{end}"
            found.append(Read(Reading(site, ids, width, places.entry(sublayer), V, constant), one.module, None))
    return found


def _heads_read(places: Places, sublayer: Sublayer, width: int, asked: list[tuple[Node, Tensor]]) -> list[Read]:
    """What covectors make of queries, keys and values."""
    found: list[Read] = []
    heads = sublayer.heads or 1
    for end in "qkv":
        mine = [(node, covector) for node, covector in asked if node.end == end]
        if not mine:
            continue
        one = matrix_at(places.layout, f"{sublayer.layer}.attn.{end}")
        outputs = width_out_of(one.module, one.site)
        rows = _covectors(places, mine, heads, width // heads, outputs)
        weight, bias = _rows(places, one, outputs)
        ids = torch.tensor([_head(node) for node, _ in mine], device=places.like.device)
        constant = None if bias is None else rows @ bias
        site = f"{sublayer.layer}.attn.head.{end}"
        reading = Reading(site, ids, heads, places.entry(sublayer), rows @ weight, constant)
        found.append(Read(reading, one.module, rows))
    return found


def _rows(places: Places, one: LinearMap, outputs: int) -> tuple[Tensor, Tensor | None]:
    """What a matrix reads, output by output, and its bias."""
    into = width_into(one.module, one.site)
    return matrix_of(one.module, outputs, into, places.like), constant_of(one.module, into, places.like)


def _covectors(
    places: Places, asked: list[tuple[Node, Tensor]], heads: int, width: int, outputs: int
) -> Float[Tensor, "target output"]:
    """Each covector at its head's place among a matrix's outputs; heads share a group's key and value.

    Raises:
        ValueError: a head that the model lacks, or a covector of another width.
    """
    groups = outputs // width
    rows = places.like.new_zeros(len(asked), groups, width)
    for row, (node, covector) in enumerate(asked):
        if covector.shape != (width,) or _head(node) >= heads:
            raise ValueError(
                f"HeadReads: {node} has a covector of shape {tuple(covector.shape)}; {places.model.name} has "
                f"{heads} heads of width {width} there"
            )
        rows[row, _head(node) * groups // heads] = covector.to(places.like)
    return rows.flatten(1)
