"""What a graph's rows say in one run of the model: pre-activations at their read sites, targets behind the final norm.

    feature   encoder row . what its dictionary reads         target   direction . stream behind the final norm
    neuron    its up map's output, times act(gate) of the clean run where it is gated

Taken from the dictionary and from what passes the model's modules; the engine that made the graph has no part in it.
Cost: one read of each row's weights for every batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.engine.logit_rows import difference, pair_of
from whence.model.hooks import hooked
from whence.model.layout import Layout, Writer
from whence.model.model import Model
from whence.model.norms import probe_norm
from whence.model.sites import writer_of
from whence.model.trace import Around, Trace
from whence.results.graph import Graph
from whence.targets.attribution import AttributionTargets
from whence.targets.specs import LogitDifference

Said = Callable[[Trace], Float[Tensor, "example row"]]


@dataclass(frozen=True, eq=False)
class Readout:
    """Some rows of a graph, the module to listen at, and what they say in a run."""

    rows: Int[Tensor, " row"]
    module: nn.Module | None
    said: Said


def readouts(
    model: Model, graph: Graph, units: DictionarySet | Neurons, clean: Trace, vectors: Float[Tensor, "target d_model"]
) -> list[Readout]:
    """A readout for each layer that has rows, and one for the targets.

    Args:
        model: the model.
        graph: whose rows are meant.
        units: what its features are.
        clean: a run of the prompt that kept what `modules` names.
        vectors: the targets' directions.
    """
    nodes = graph.nodes
    outputs = nodes.of("output")
    found = [Readout(outputs, None, lambda trace: trace.final.output[:, -1].to(vectors) @ vectors.T)]
    rows = nodes.of("mlp.feature", "mlp.neuron")
    for layer in nodes.layer[rows].unique().tolist():
        here = rows[nodes.layer[rows] == layer]
        writer = writer_of(model.layout, layer, "mlp", "moe")
        at, index = (column[here].to(vectors.device) for column in (nodes.position, nodes.index))
        if isinstance(units, DictionarySet):
            found.append(Readout(here, *_of_features(writer, units, layer, at, index, vectors)))
        else:
            found.append(Readout(here, *_of_neurons(writer, at, index, clean)))
    return found


def modules(layout: Layout, units: DictionarySet | Neurons) -> frozenset[nn.Module]:
    """Where the readouts of a graph of these units may listen."""
    if isinstance(units, DictionarySet):
        writers = [writer_of(layout, layer, "mlp", "moe") for layer in units.layers]
        return frozenset(_read_module(writer, units.reads) for writer in writers)
    kept = [(w.up, w.entrance) for w in layout.writers if w.name == "mlp"]
    return frozenset(module for pair in kept for module in pair if module is not None)


def directions(model: Model, graph: Graph, targets: Any, logits: Tensor) -> Float[Tensor, "target d_model"]:
    """The direction of each of a graph's targets.

    Args:
        model: gives tokens' directions.
        graph: names the targets.
        targets: what the graph was asked to explain, where some of it is not tokens.
        logits: of the clean run, at the position explained.

    Raises:
        ValueError: a graph of custom directions without them, or with others.
    """
    ids = torch.tensor([target.vocab_idx for target in graph.logit_targets], device=model.device)
    own = ids < graph.vocab_size
    if not bool(own.all()):
        return _given(model, graph, targets, logits)
    vectors = model.unembedding(ids)
    if graph.provenance.get("convention") != "circuit-tracer":
        return vectors
    chunks = torch.arange(model.vocab_size, device=model.device).split(8192)
    return vectors - torch.stack([model.unembedding(chunk).sum(0) for chunk in chunks]).sum(0) / model.vocab_size


def _given(model: Model, graph: Graph, targets: Any, logits: Tensor) -> Float[Tensor, "target d_model"]:
    names = [target.token_str for target in graph.logit_targets]
    if targets is None:
        raise ValueError(
            f"the graph explains directions that it does not hold ({', '.join(map(repr, names))}); pass them as "
            "targets=, as to attribution_graph"
        )
    made: Any = targets
    if isinstance(targets, LogitDifference):
        made = [difference(model, pair_of(model, targets))]
    if not isinstance(made, AttributionTargets):
        made = AttributionTargets(made, model=model, logits=logits)
    if made.tokens != names:
        raise ValueError(f"targets= are {made.tokens} and the graph's are {names}; pass those it was made with")
    return made.logit_vectors.to(model.device, model.accumulation)


def _of_features(
    writer: Writer,
    units: DictionarySet,
    layer: int,
    position: Int[Tensor, " row"],
    index: Int[Tensor, " row"],
    like: Tensor,
) -> tuple[nn.Module, Said]:
    module = _read_module(writer, units.reads)
    encoder = units.encoder(layer, index)[0].to(like)

    def said(trace: Trace) -> Tensor:
        x = _read(writer, units.reads, trace.around[module])
        return (x[:, position].to(encoder) * encoder).sum(-1)

    return module, said


def _read_module(writer: Writer, site: str) -> nn.Module:
    return writer.entrance if site == "mlp_in" or writer.norm is None else writer.norm


def _read(writer: Writer, site: str, around: Around) -> Float[Tensor, "example pos d_model"]:
    if site != "mlp_in_normalized":
        return around.input
    assert writer.norm is not None
    probed = probe_norm(writer.norm, around.input.shape[-1])
    x = around.input.to(probed.gain)
    return probed.centre(x) * probed.inverse_scale(x, around.output)[..., None]


def _of_neurons(
    writer: Writer, position: Int[Tensor, " row"], index: Int[Tensor, " row"], clean: Trace
) -> tuple[nn.Module, Said]:
    up = writer.up
    assert up is not None
    fused = writer.gate is up
    neurons = clean.around[up].output.shape[-1] // (1 + fused)
    gate = None if writer.gate is None else gate_of(writer, clean.around[writer.entrance].input, neurons)[0]

    def said(trace: Trace) -> Tensor:
        values = trace.around[up].output[:, position, index + fused * neurons]
        return values if gate is None else values * gate[position, index].to(values)

    return up, said


@torch.no_grad()
def gate_of(
    writer: Writer, x: Float[Tensor, "example pos d_model"], neurons: int
) -> Float[Tensor, "example pos neuron"]:
    """act(gate) of a gated MLP: what its last map is given when every `up` is 1."""
    seen: list[Tensor] = []
    assert writer.up is not None

    def ones(args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return torch.cat([output[..., :-neurons], torch.ones_like(output[..., -neurons:])], -1)

    with hooked([(writer.up, ones)], [(writer.write, lambda args, _: seen.append(args[0]))]):
        writer.module(x)
    return seen[0]
