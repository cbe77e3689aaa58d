"""Attribution graphs the slow way: every row by one backward pass through the frozen model.

Inside `frozen`, each MLP's output is replaced by a leaf of the same value (a linear skip stays live beside it), and so
is the stream before the first block. What a target reads is a number of that graph; its gradient at a leaf, times what
a source writes there, is the edge. Nothing of that uses the engine, whose rows `by_engine` gives in the same form.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from whence.components.activation import Activation
from whence.components.cross_layer import CrossLayerTranscoder
from whence.components.neurons import Neurons
from whence.components.sets import DictionarySet
from whence.components.transcoder import Transcoder
from whence.engine.assembly import node_table, number
from whence.engine.expansion import chunks, solve, solve_logits
from whence.engine.expansion_order import readable
from whence.engine.linearize import Linearized, linearize
from whence.engine.logit_rows import explained
from whence.engine.tolerance import refuse_gap, tolerance_of
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, main_output, replace_first
from whence.model.layout import Writer
from whence.model.model import Model
from whence.model.norms import probe_norm

WINDOWS = ("mistral window", "gemma2 window", "gpt_oss window", "gpt_neo local")
PARALLEL = ("gpt_neox sequential", "stablelm parallel")
BIASED = ("llama biased", "llama tied")
FEATURES = 12


# ------------------------------------------------------------ dictionaries
def _random(model: Model, seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=model.accumulation)


def transcoders(
    model: Model,
    *,
    features: int | tuple[int, ...] = FEATURES,
    layers: Iterable[int] | None = None,
    skip: bool = False,
    seed: int = 0,
    **sites: Any,
) -> DictionarySet:
    """Random transcoders, about half of whose features are active; `features`: one number, or one a layer."""
    random, d = _random(model, seed), model.d_model
    made: list[Transcoder] = []
    for i, layer in enumerate(range(model.n_layers) if layers is None else layers):
        n = features if isinstance(features, int) else features[i]
        matrices = random(n, d) / d**0.5, 0.3 * random(n) - 0.3, random(n, d) / d**0.5, 0.3 * random(d)
        W_skip = random(d, d) / d**0.5 if skip else None
        made.append(Transcoder(layer, *matrices, Activation("relu"), W_skip=W_skip, **sites))
    return DictionarySet(tuple(made))


def cross_layer(
    model: Model, *, layers: tuple[int, ...] | None = None, skip: bool = False, seed: int = 0, **sites: Any
) -> DictionarySet:
    """A random cross-layer transcoder, its layers of unequal width."""
    random, d = _random(model, seed), model.d_model
    reads = tuple(range(model.n_layers)) if layers is None else layers
    widths = [FEATURES - i for i in range(len(reads))]
    return DictionarySet(
        (
            CrossLayerTranscoder(
                tuple(random(n, d) / d**0.5 for n in widths),
                tuple(0.3 * random(n) - 0.3 for n in widths),
                tuple(random(n, model.n_layers - layer, d) / d**0.5 for n, layer in zip(widths, reads, strict=True)),
                tuple(0.3 * random(d) for _ in reads),
                Activation("relu"),
                layers=reads,
                W_skip=tuple(random(d, d) / d**0.5 for _ in reads) if skip else None,
                **sites,
            ),
        )
    )


# ------------------------------------------------------------ edges
@dataclass(frozen=True, eq=False)
class Edges:
    """Edges by key, and the number that each row explains, biases of the stream included."""

    targets: list[str]
    sources: list[str]
    weights: Tensor  # [target, source]
    values: Tensor  # [target]

    def at(self, targets: list[str], sources: list[str]) -> Tensor:
        rows = torch.tensor([self.targets.index(key) for key in targets])
        columns = torch.tensor([self.sources.index(key) for key in sources])
        return self.weights[rows[:, None], columns]


def furthest(one: Edges, other: Edges) -> float:
    """The largest difference as a share of the largest weight; the same nodes are asked for."""
    assert sorted(one.targets) == sorted(other.targets)
    assert sorted(one.sources) == sorted(other.sources)
    difference = one.weights - other.at(one.targets, one.sources).to(one.weights)
    return float(difference.abs().max() / one.weights.abs().max())


def by_autograd(
    model: Model,
    ids: Tensor,
    units: DictionarySet | Neurons,
    tokens: Iterable[int] = (5, 6),
    bos: tuple[int, ...] = (),
) -> Edges:
    """Every row of the graph of a prompt [1, pos]."""
    run = _Run(model, ids, units, bos)
    targets = {**run.features(), **run.logits(tokens)}
    leaves = list(run.leaves)
    rows = [
        torch.autograd.grad(number, [run.leaves[leaf] for leaf in leaves], retain_graph=True, allow_unused=True)
        for number in targets.values()
    ]
    nothing = torch.zeros(ids.shape[1], model.d_model, dtype=model.accumulation)
    gradients = {
        leaf: torch.stack([nothing if row[i] is None else row[i].reshape_as(nothing) for row in rows])
        for i, leaf in enumerate(leaves)
    }
    sources: dict[str, Tensor] = {}
    for key, leaf, position, vector in run.sources():
        sources[key] = sources.get(key, 0) + gradients[leaf][:, position] @ vector
    values = torch.stack([number.detach() for number in targets.values()])
    return Edges(list(targets), list(sources), torch.stack(list(sources.values()), 1), values)


def by_engine(
    model: Model,
    ids: Tensor,
    units: DictionarySet | Neurons,
    tokens: Iterable[int] = (5, 6),
    bos: tuple[int, ...] = (),
) -> Edges:
    """The same rows from the engine, biases left out."""
    linear = linearized(model, ids, units, bos)
    table = [str(node) for node in node_table(linear, number(linear, readable(linear), parity=False), [])]
    sources = table[: linear.stream.nodes]
    rows, values, targets = [torch.zeros(0, len(sources))], list[Tensor](), list[str]()
    asked = explained(model, linear, torch.tensor(list(tokens)), 1, 0.5, demeaned=False)
    logits = solve_logits(linear, asked.vectors, asked.constant, asked.value, asked.scale)
    for solved in (*(solve(linear, chunk) for chunk in chunks(linear, readable(linear))), logits):
        part = solved.values.new_zeros(len(solved.value), len(sources))
        part[:, solved.columns] = solved.values
        refuse_gap(solved.gap(), solved.magnitude(), tolerance_of(model.dtype))
        group = None if solved.chunk.group is None else linear.stream.groups[solved.chunk.group]
        targets += [sources[group.offset + int(i)] for i in solved.chunk.node] if group else []
        rows, values = [*rows, part], [*values, solved.value]
    targets += [f"output:{token}@{ids.shape[1] - 1}" for token in tokens]
    return Edges(targets, sources, torch.cat(rows), torch.cat(values))


def linearized(
    model: Model, ids: Tensor, units: DictionarySet | Neurons, bos: tuple[int, ...] = (), position: int = -1
) -> Linearized:
    """The engine's linear model of a prompt [1, pos]."""
    return linearize(model, model.batch(ids), units, position=position % ids.shape[1], bos=bos)


def together(edges: Edges, name: str, whole: str) -> Edges:
    """Sources of one name at each layer and position as one: experts as their layer's whole output."""
    keys = [re.sub(rf"{name}:\d+", whole, key) for key in edges.sources]
    distinct = list(dict.fromkeys(keys))
    place = torch.tensor([distinct.index(key) for key in keys])
    weights = edges.weights.new_zeros(len(edges.targets), len(distinct)).index_add_(1, place, edges.weights)
    return replace(edges, sources=distinct, weights=weights)


def by_graph(graph: Any) -> Edges:
    """The rows of a finished graph."""
    keys = [str(node) for node in graph.nodes]
    rows = graph.certificate.rows
    return Edges([keys[i] for i in rows], keys, graph.weights.dense()[rows], graph.certificate.value)


@dataclass
class _Run:
    """One forward pass with everything frozen, cut at what the sublayers write."""

    model: Model
    ids: Tensor
    units: DictionarySet | Neurons
    bos: tuple[int, ...]
    leaves: dict[Any, Tensor] = field(default_factory=dict)
    seen: dict[Any, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = self.model.layout
        self.length = self.ids.shape[1]
        encoded = () if isinstance(self.units, Neurons) else self.units.layers
        self.covered = {at for layer in encoded for at in self.units.written(layer)}
        # A layer's mixture of experts and its shared expert are one module.
        self.writers = {w.module: w for w in layout.writers if w.name in ("mlp", "moe", "ssm")}.values()
        after = [hook for writer in self.writers for hook in self._after(writer)]
        after += [(layout.head, lambda args, kwargs, output: self.seen.update(raw=output[0]))]
        before = [(writer.entrance, self._keep("in", writer)) for writer in self.writers if writer.name != "ssm"]
        before += [(writer.write, self._keep("activation", writer)) for writer in self.writers if writer.name == "mlp"]
        with hooked(before=before), frozen(layout), hooked(after, [(layout.blocks[0], self._enter)]):
            layout.hf(input_ids=self.ids, use_cache=False)

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(self.length, -1)

    # ------------------------------------------------------------ cutting
    def _keep(self, what: str, writer: Writer) -> Any:
        def keep(args: Any, kwargs: Any) -> None:
            self.seen[what, writer.layer] = self.rows(first_tensor(args, kwargs))

        return keep

    def _enter(self, args: Any, kwargs: Any) -> Any:
        self.leaves["embed"] = first_tensor(args, kwargs).detach().clone().requires_grad_()
        return replace_first(args, kwargs, self.leaves["embed"])

    def _after(self, writer: Writer) -> list[Any]:
        def cut(args: Any, kwargs: Any, output: Any) -> Any:
            leaf = main_output(output).detach().clone().requires_grad_()
            self.leaves[writer.layer, writer.name] = leaf
            live = self._skipped(writer).reshape(leaf.shape)
            value = leaf + live - live.detach()
            return (value, *output[1:]) if isinstance(output, tuple) else value

        def norm(args: Any, kwargs: Any, output: Tensor) -> None:
            self.seen["mid", writer.layer] = self.rows(first_tensor(args, kwargs))
            self.seen["normed", writer.layer] = self.rows(output)

        def position(args: Any, kwargs: Any, output: Tensor) -> None:
            self.seen["position"] = self.rows(output.detach()[:1])

        def gate(args: Any, kwargs: Any, output: Tensor) -> Tensor:
            if writer.gate is not writer.up:
                return output.detach()
            half = output.shape[-1] // 2
            return torch.cat([output[..., :half].detach(), output[..., half:]], -1)

        def up(args: Any, kwargs: Any, output: Tensor) -> None:
            self.seen["up", writer.layer] = self.rows(output)

        normed = isinstance(self.units, DictionarySet) and self.units.writes == "mlp_out_normed"
        normed = normed and writer.layer in self.covered and writer.post_norm is not None
        whole = writer.write if writer.name == "mlp" else writer.module
        hooks = [(writer.post_norm if normed else whole, cut)]
        if writer.norm is not None and writer.name != "ssm":
            hooks.append((writer.norm, norm))
        if self.model.layout.position is not None:
            hooks.append((self.model.layout.position, position))
        if self.units == Neurons("frozen") and writer.gate is not None:
            hooks.append((writer.gate, gate))
        if isinstance(self.units, Neurons) and writer.up is not None and writer.gate is None:
            hooks.append((writer.up, up))
        return hooks

    def trusted(self) -> Tensor:
        return torch.tensor([[position not in self.bos] for position in range(self.length)])

    def _skipped(self, writer: Writer) -> Tensor:
        layer, skip = writer.layer, None
        if isinstance(self.units, DictionarySet) and layer in self.units.layers and writer.name != "ssm":
            skip = self.units.skip(layer)
        if skip is None:
            return torch.zeros(self.length, self.model.d_model, dtype=self.model.accumulation)
        return self.read(layer) @ skip.T * self.trusted()

    # ------------------------------------------------------------ targets
    def read(self, layer: int) -> Tensor:
        assert isinstance(self.units, DictionarySet)
        if self.units.reads == "mlp_in" or ("mid", layer) not in self.seen:
            return self.seen["in", layer]
        if self.units.reads == "resid_mid":
            return self.seen["mid", layer]
        norm = next(w.norm for w in self.writers if w.layer == layer and w.name != "ssm")
        probed = probe_norm(norm, self.model.d_model)
        return (self.seen["normed", layer] - probed.bias) / probed.gain

    def activations(self, layer: int) -> Tensor:
        assert isinstance(self.units, DictionarySet)
        return self.units[layer].encoder_of(layer).encode(self.read(layer).detach()) * self.trusted()

    def features(self) -> dict[str, Tensor]:
        """What each unit with a row explains, its own constant left out."""
        found: dict[str, Tensor] = {}
        if isinstance(self.units, Neurons):
            for writer in (w for w in self.writers if w.name == "mlp"):
                plain = writer.gate is None
                numbers = self.seen["up" if plain else "activation", writer.layer]
                if plain and writer.up.bias is not None:
                    numbers = numbers - writer.up.bias.detach()
                keys = [(p, j) for p in range(self.length) for j in range(numbers.shape[1])]
                found |= {f"{writer.layer}.mlp.neuron:{j}@{p}": numbers[p, j] for p, j in keys}
            return found
        for layer in self.units.layers:
            weight = self.units[layer].encoder_of(layer).weight
            numbers = self.read(layer) @ weight.T
            for p, f in self.activations(layer).nonzero().tolist():
                found[f"{layer}.mlp.feature:{f}@{p}"] = numbers[p, f]
        return found

    def logits(self, tokens: Iterable[int]) -> dict[str, Tensor]:
        raw = self.seen["raw"][-1] * self.model.layout.logit_scale
        return {f"output:{token}@{self.length - 1}": raw[token] for token in tokens}

    # ------------------------------------------------------------ sources
    def sources(self) -> Iterable[tuple[str, Any, int, Tensor]]:
        """(key, leaf, position, vector); a source that writes at several leaves comes several times."""
        for writer in self.writers:
            leaf = (writer.layer, writer.name)
            whole = self.rows(self.leaves[leaf].detach())
            if writer.name != "ssm" and writer.layer in self.covered:
                yield from self._encoded(writer, whole)
            elif isinstance(self.units, Neurons) and writer.name == "mlp":
                down = writer.write.weight.detach()
                down = down.T if down.shape[0] == self.model.d_model else down
                for p, activation in enumerate(self.seen["activation", writer.layer].detach()):
                    for j, value in enumerate(activation):
                        yield f"{writer.layer}.mlp.neuron:{j}@{p}", leaf, p, value * down[j]
            else:
                for p in range(self.length):
                    yield f"{writer.layer}.{writer.name}@{p}", leaf, p, whole[p]
        stream = self.rows(self.leaves["embed"].detach())
        learned = self.seen.get("position")
        for p, token in enumerate(self.ids[0].tolist()):
            yield f"embed:{token}@{p}", "embed", p, stream[p] if learned is None else stream[p] - learned[p]
            if learned is not None:
                yield f"pos_embed@{p}", "embed", p, learned[p]

    def _encoded(self, writer: Writer, whole: Tensor) -> Iterable[tuple[str, Any, int, Tensor]]:
        assert isinstance(self.units, DictionarySet)
        at, leaf = writer.layer, (writer.layer, writer.name)
        missed = whole - self._skipped(writer).detach()
        if at in self.units.layers:
            missed = missed - self.units[at].bias_of(at) * self.trusted()
        for layer in (layer for layer in self.units.layers if at in self.units.written(layer)):
            decoder, activations = self.units[layer].decoder_of(layer, at), self.activations(layer)
            missed = missed - activations @ decoder
            for p, f in activations.nonzero().tolist():
                yield f"{layer}.mlp.feature:{f}@{p}", leaf, p, activations[p, f] * decoder[f]
        for p in range(self.length):
            yield f"{at}.{writer.name if p in self.bos else 'mlp.error'}@{p}", leaf, p, missed[p]
