"""Where a number is read from the stream, and as which functional of it.

Logits are read behind the final norm. A neuron's or transcoder feature's pre-activation is read behind its sublayer's
own norm, a residual SAE's feature from the bare stream; only what was written before that place counts. Then
value = u . N(x) + constant, with u the unit's input weights.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whence.components.dictionaries import SAE, Dictionary
from whence.components.sites import place_name
from whence.engine.dictionary_values import normalized
from whence.engine.functional import Functional, dot
from whence.model.layout import Layout, Writer
from whence.model.linear import constant_of, rows_of
from whence.model.model import Model
from whence.model.trace import Trace
from whence.results.keys import Node
from whence.targets.resolve import Resolved
from whence.targets.specs import ActivationTarget

Place = tuple[int, int]  # (layer, stage): what is written before a place has a smaller one


def place_of(site: str, layer: int) -> Place:
    """Where in the stream a residual site lies."""
    return (layer, 0) if site == "resid_pre" else (layer + 1, 0)


@dataclass(frozen=True, eq=False)
class Reading:
    """A place in the stream and the norm it is read through.

    Args:
        place: writes at or after it do not count.
        norm: held at its scale; None reads the bare stream.
        reader: the module whose input is what was read; None for logits and for residual sites.
        site: node-key name of the place.
        stream: the layer whose output is the stream read bare; None where a norm or module tells.
        unit: the neuron or feature read, with its dictionary; None for logits.
        before_gain: whether the norm is read before its gain and bias.
    """

    place: Place
    norm: nn.Module | None
    reader: nn.Module | None = None
    site: str = "final_norm"
    stream: int | None = None
    unit: tuple[Node, Writer | None, Dictionary | None] | None = None
    before_gain: bool = False

    @property
    def modules(self) -> frozenset[nn.Module]:
        """What a trace must keep the input and output of; the final norm it always keeps."""
        return frozenset(module for module in (self.norm, self.reader) if module is not None and self.unit is not None)


def reading_of(layout: Layout, resolved: Resolved, dictionaries: Collection[Dictionary]) -> Reading:
    """Where the asked number is read.

    Raises:
        ValueError: a layer, neuron or feature that does not exist, or a feature without its dictionary.
        NotImplementedError: a unit that does not read the stream linearly.
    """
    if not isinstance(resolved, ActivationTarget):
        return Reading((len(layout.blocks), 0), layout.final_norm)
    node = resolved.node
    layer = node.layer if node.layer is not None else -1
    if not 0 <= layer < len(layout.blocks):
        raise ValueError(f"{node}: the model has layers 0 to {len(layout.blocks) - 1}")
    if node.name == "mlp.neuron" or node.name == "mlp.feature":
        return _behind_mlp_norm(layout, node, layer, dictionaries)
    site = node.name.removesuffix(".feature")
    if site not in ("resid_pre", "resid_post"):
        raise NotImplementedError(
            f"{node} does not read the stream; targets are neurons, mlp.feature and resid features"
        )
    sae = _dictionary_for(node, layer, dictionaries)
    source = layer if site == "resid_post" else layer - 1
    return Reading(place_of(site, layer), None, None, f"{layer}.{site}", source, (node, None, sae))


def _behind_mlp_norm(layout: Layout, node: Node, layer: int, dictionaries: Collection[Dictionary]) -> Reading:
    writer = next((w for w in layout.of(layer) if w.name == "mlp"), None)
    if writer is None or (node.name == "mlp.neuron" and writer.up is None):
        held = ", ".join(w.name for w in layout.of(layer))
        raise NotImplementedError(f"{node}: layer {layer} has no MLP whose neurons can be read; it holds {held}")
    site = f"{layer}.{'resid_mid' if writer.stage else 'resid_pre'}"
    place = (layer, writer.stage)
    if node.name == "mlp.feature":
        return _of_transcoder(place, site, node, writer, _dictionary_for(node, layer, dictionaries))
    gated = writer.gate is not None
    if gated != (node.end is not None):
        ends = f"name its end, {node}.gate or {node}.up" if gated else "this MLP is not gated; leave the end out"
        raise ValueError(f"{node}: {ends}")
    reader = writer.gate if node.end == "gate" else writer.up
    return Reading(place, writer.norm, reader, site, None, (node, writer, None))


def _of_transcoder(place: Place, site: str, node: Node, writer: Writer, dictionary: Dictionary) -> Reading:
    unit = (node, writer, dictionary)
    if dictionary.reads == "resid_mid":
        return Reading(place, None, writer.norm or writer.entrance, site, None, unit)
    return Reading(place, writer.norm, writer.entrance, site, None, unit, dictionary.reads == "mlp_in_normalized")


def _dictionary_for(node: Node, layer: int, dictionaries: Collection[Dictionary]) -> Dictionary:
    for dictionary in dictionaries:
        place = place_name(dictionary.site) if isinstance(dictionary, SAE) else "mlp"
        if layer in dictionary.layers and node.name == f"{place}.feature":
            n = dictionary.encoder_of(layer).n_features
            if not isinstance(node.index, int) or node.index >= n:
                raise ValueError(f"{node}: the dictionary has features 0 to {n - 1}")
            return dictionary
    raise ValueError(f"{node} is a feature of a dictionary that was not given; pass it as dictionary=")


def preactivation(model: Model, reading: Reading, trace: Trace) -> Functional:
    """The functional of a unit's input weights."""
    assert reading.unit is not None
    node, writer, dictionary = reading.unit
    if dictionary is None:
        weight, bias = _neuron_input(model, node, writer, reading)
    else:
        weight, bias = _feature_input(dictionary, node)
    vectors = weight.to(model.device, model.accumulation)[None, None, None]
    constant = bias.to(vectors).reshape(1, 1, 1)
    value = dot(what_was_read(reading, trace).to(vectors), vectors) + constant
    return Functional(vectors, constant, value, None, ((str(node),),) * len(trace.batch.ids))


def what_was_read(reading: Reading, trace: Trace) -> Tensor:
    """N(x) at the asked rows, as the model computed it."""
    if reading.before_gain and reading.norm is not None:
        return normalized(reading.norm, trace.around[reading.norm])
    if reading.reader is not None:
        return trace.around[reading.reader].input
    return stream_after(trace, reading.stream)


def stream_after(trace: Trace, layer: int | None) -> Tensor:
    """The stream after a layer; before the first one for layer -1."""
    if layer is not None and layer >= 0:
        return trace.streams[layer]
    return trace.embedding if trace.position is None else trace.embedding + trace.position


def _neuron_input(model: Model, node: Node, writer: Writer | None, reading: Reading) -> tuple[Tensor, Tensor]:
    assert writer is not None
    assert reading.reader is not None
    assert isinstance(node.index, int)
    fused = writer.gate is writer.up and writer.gate is not None
    outputs = int(getattr(reading.reader, "out_features", None) or getattr(reading.reader, "nf", 0))
    neurons = outputs // 2 if fused else outputs
    if node.index >= neurons:
        raise ValueError(f"{node}: the layer has neurons 0 to {neurons - 1}")
    row = node.index + (neurons if fused and node.end == "up" else 0)
    weight = rows_of(reading.reader, torch.tensor([row]), model.d_model, outputs)[0]
    bias = constant_of(reading.reader, model.d_model, weight)
    return weight, weight.new_zeros(()) if bias is None else bias[row]


def _feature_input(dictionary: Dictionary, node: Node) -> tuple[Tensor, Tensor]:
    assert node.layer is not None
    weight, bias = dictionary.encoder_of(node.layer).rows(torch.tensor([node.index]))
    return weight[0], bias[0]
