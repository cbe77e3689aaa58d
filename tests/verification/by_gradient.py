"""Small graphs made the slow way: a row is a gradient of the frozen model, a source a vector written by hand."""

from typing import Any

import torch
from torch import Tensor

from families import loaded, prompts
from whence.components.activation import Activation
from whence.components.dictionaries import CrossLayerTranscoder, Transcoder
from whence.components.sets import DictionarySet
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, main_output, replace_first
from whence.model.model import Model
from whence.model.sites import writer_of
from whence.results.certificate import Certificate
from whence.results.graph import Graph
from whence.results.keys import LogitTarget, Node
from whence.results.nodes import NodeTable
from whence.results.weights import Weights

PROMPT = prompts()[0]
TARGETS = (7, 23)
RELU = Activation("relu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def transcoders(**more: Any) -> DictionarySet:
    parts = ((noise(6, 32, seed=n), noise(6, seed=n), noise(6, 32, seed=9 + n), noise(32)) for n in range(3))
    return DictionarySet(tuple(Transcoder(layer, *part, RELU, **more) for layer, part in enumerate(parts)))


def cross_layer() -> DictionarySet:
    return DictionarySet(
        (
            CrossLayerTranscoder(
                W_enc=tuple(noise(6, 32, seed=layer) for layer in range(3)),
                b_enc=tuple(noise(6) for _ in range(3)),
                W_dec=tuple(noise(6, 3 - layer, 32, seed=9 + layer) for layer in range(3)),
                b_dec=tuple(noise(32) for _ in range(3)),
                activation=RELU,
            ),
        )
    )


class Frozen:
    """The frozen model around one prompt: leaves where sources write, and what rows read."""

    def __init__(self, model: Model, dictionary: DictionarySet | None) -> None:
        self.model, layout = model, model.layout
        self.mlps = [writer_of(layout, layer, "mlp", "moe") for layer in range(3)]
        self.leaves = {at: torch.zeros(9, 32, requires_grad=True) for at in ("embed", 0, 1, 2)}
        self.read: dict[Any, Tensor] = {}
        self.written: dict[Any, Tensor] = {}
        self.neurons: dict[int, Tensor] = {}
        skips = [None] * 3 if dictionary is None else [dictionary.skip(layer) for layer in range(3)]

        def enter(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            stream = first_tensor(args, kwargs)
            self.written["embed"] = stream.detach()[0]
            return replace_first(args, kwargs, stream + self.leaves["embed"])

        def writes(layer: int) -> Any:
            def add(args: tuple, kwargs: dict, output: Any) -> Tensor:
                out, x, skip = main_output(output), self.read[layer], skips[layer]
                self.written[layer] = out.detach().reshape(9, 32)
                passed = 0 if skip is None else (x - x.detach()) @ skip.T
                return out + (self.leaves[layer] + passed).reshape(out.shape)

            return add

        def reads(layer: int) -> Any:
            return lambda args, kwargs: self.read.update({layer: first_tensor(args, kwargs).reshape(9, 32)})

        def final(args: tuple, kwargs: dict, output: Tensor) -> None:
            self.read["final"] = output[0]

        after = [(writer.module, writes(layer)) for layer, writer in enumerate(self.mlps)]
        before = [(writer.entrance, reads(layer)) for layer, writer in enumerate(self.mlps)]
        before += [
            (writer.write, lambda args, _, layer=layer: self.neurons.update({layer: args[0].detach().reshape(9, -1)}))
            for layer, writer in enumerate(self.mlps)
        ]
        with frozen(layout), hooked([*after, (layout.final_norm, final)], [(layout.blocks[0], enter), *before]):
            layout.hf(input_ids=PROMPT[None], use_cache=False)

    def effects(self, row: Tensor, sources: list[list[tuple[Any, int, Tensor]]]) -> Tensor:
        """What each source, a list of (where, position, vector), adds to a row."""
        names = list(self.leaves)
        given = torch.autograd.grad(row, list(self.leaves.values()), retain_graph=True, allow_unused=True)
        gradient = {name: torch.zeros(9, 32) if g is None else g for name, g in zip(names, given, strict=True)}
        return torch.stack([sum(gradient[at][p] @ v for at, p, v in source) for source in sources])


def feature_graph(name: str, dictionary: DictionarySet, *, vectors: Tensor | None = None) -> Graph:
    """Features, errors and embeddings of a tiny model; rows for features and targets."""
    model = loaded(name)
    run = Frozen(model, dictionary)
    nodes: list[Node] = []
    sources: list[list[tuple[Any, int, Tensor]]] = []
    rows: list[Tensor] = []
    left = {layer: run.written[layer] - dictionary.decoder_bias(layer) for layer in range(3)}
    for layer in range(3):
        x = run.read[layer]
        pre = x @ dictionary.encoder(layer, torch.arange(6))[0].T + dictionary.encoder(layer, torch.arange(6))[1]
        skip = dictionary.skip(layer)
        left[layer] = left[layer] if skip is None else left[layer] - x.detach() @ skip.T
        for position, feature in (pre > 0).nonzero().tolist():
            nodes.append(Node("mlp.feature", layer, feature, position=position))
            a, chosen = pre[position, feature].detach(), torch.tensor([feature])
            parts = [(at, position, a * dictionary.decoder(layer, chosen, at)[0]) for at in dictionary.written(layer)]
            for at, _, vector in parts:
                left[at] = left[at].index_add(0, torch.tensor([position]), -vector[None])
            sources.append(parts)
            rows.append(pre[position, feature])
    for layer in range(3):
        nodes += [Node("mlp.error", layer, position=position) for position in range(9)]
        sources += [[(layer, position, left[layer][position])] for position in range(9)]
    return _graph(model, run, nodes, sources, rows, vectors)


def neuron_graph(name: str) -> Graph:
    """The ten strongest neurons of each layer and the embeddings."""
    model = loaded(name)
    run = Frozen(model, None)
    nodes, sources, rows = [], [], []
    for layer, writer in enumerate(run.mlps):
        z = run.neurons[layer]
        x = run.read[layer]
        mlp: Any = writer.module
        for flat in z.abs().flatten().topk(10).indices.sort().values.tolist():
            position, neuron = divmod(flat, z.shape[1])
            nodes.append(Node("mlp.neuron", layer, neuron, position=position))
            column = mlp.down_proj.weight[:, neuron] if hasattr(mlp, "down_proj") else mlp.c_proj.weight[neuron]
            sources.append([(layer, position, z[position, neuron] * column.detach())])
            if hasattr(mlp, "gate_proj"):
                gate = mlp.act_fn(mlp.gate_proj(x)).detach()[position, neuron]
                rows.append(gate * mlp.up_proj(x)[position, neuron])
            else:
                rows.append(mlp.c_fc(x)[position, neuron])
    return _graph(model, run, nodes, sources, rows, None)


def _graph(
    model: Model, run: Frozen, nodes: list[Node], sources: list, rows: list[Tensor], vectors: Tensor | None
) -> Graph:
    position = torch.zeros(9, 32) if model.layout.position is None else model.layout.position.weight.detach()
    shift = getattr(model.layout.position, "offset", 0)
    for at in range(9):
        nodes.append(Node("embed", index=int(PROMPT[at]), position=at))
        sources.append([("embed", at, run.written["embed"][at] - position[at + shift])])
    if model.layout.position is not None:
        nodes += [Node("pos_embed", index=at, position=at) for at in range(9)]
        sources += [[("embed", at, position[at + shift])] for at in range(9)]
    tokens = torch.tensor(TARGETS)
    directions = model.unembedding(tokens) if vectors is None else vectors
    targets = [run.read["final"][-1] @ direction for direction in directions]
    ids = TARGETS if vectors is None else tuple(range(model.vocab_size, model.vocab_size + len(vectors)))
    effects = torch.stack([run.effects(row, sources) for row in [*rows, *targets]])
    count, every = len(rows), len(nodes)
    nodes += [Node("output", index=i, position=8) for i in ids]
    weights = torch.zeros(len(nodes), len(nodes))
    weights[:count, :every], weights[every:, :every] = effects[:count], effects[count:]
    features = [(node.layer, node.position, node.index) for node in nodes[:count]]
    nothing = torch.zeros(len(targets))
    return Graph(
        nodes=NodeTable.from_nodes(nodes),
        weights=Weights.from_dense(weights),
        logit_targets=tuple(LogitTarget(f"target {i}", i) for i in ids),
        logit_probabilities=torch.full((len(ids),), 1 / len(ids)),
        vocab_size=model.vocab_size,
        prompt="",
        input_tokens=PROMPT,
        token_texts=tuple(map(str, PROMPT.tolist())),
        active_features=torch.tensor(features),
        activation_values=torch.ones(count),
        selected_features=torch.arange(count),
        certificate=Certificate(torch.arange(every, len(nodes)), nothing, nothing, nothing + 1, 1.0),
        provenance={"convention": "whence"},
    )
