"""Rows against autograd through the frozen model, against finite differences in it, and against themselves."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, loaded, prompts
from graphs import BIASED, PARALLEL, WINDOWS, Edges, by_autograd, by_engine, furthest, linearized, transcoders
from whence.components.sets import DictionarySet
from whence.engine.expansion import Chunk, chunks, solve
from whence.engine.expansion_order import readable
from whence.engine.linearize import Linearized
from whence.engine.transport import constant_rows, pull_rows
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, main_output
from whence.model.model import Model

IDS = prompts(1, 7)
EVERY = (*GRAPH_FAMILIES, *WINDOWS, *PARALLEL, *BIASED)


@pytest.mark.parametrize("name", EVERY)
def test_rows_are_the_gradients_of_the_frozen_model(name: str) -> None:
    model = loaded(name, torch.float64)
    units = transcoders(model, skip=True)
    expected, found = by_autograd(model, IDS, units, bos=(0,)), by_engine(model, IDS, units, bos=(0,))
    assert furthest(expected, found) < 1e-7  # norms that compute their scale in float32 cannot be held closer
    places = [found.targets.index(key) for key in expected.targets]
    assert (expected.values - found.values[places]).abs().max() < 1e-6 * expected.values.abs().max()


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite", "stablelm parallel", "mistral window"])
def test_a_step_of_any_size_along_a_source_moves_targets_by_its_weight(name: str) -> None:
    model = loaded(name, torch.float64)
    units = transcoders(model)
    edges = by_engine(model, IDS, units)
    sources = [key for key in edges.sources if "feature" in key][::9]
    targets = [key for key in edges.targets if "feature" in key]
    base, *moved = _moved(model, units, [None, *sources], targets)
    predicted = edges.at(targets, sources)
    assert (torch.stack(moved, 1) - base[:, None] - 3 * predicted).abs().max() < 1e-6 * predicted.abs().max()


def _moved(model: Model, units: DictionarySet, sources: list[str | None], targets: list[str]) -> list[Tensor]:
    """Targets' pre-activations in the frozen model, three times each source added in turn to what its MLP writes."""
    seen: dict[int, Tensor] = {}
    writers = {w.layer: w for w in model.layout.writers if w.name == "mlp"}
    before = [(w.entrance, lambda a, k, at=w.layer: seen.update({at: first_tensor(a, k)[0]})) for w in writers.values()]
    found: list[Tensor] = []
    with torch.no_grad(), frozen(model.layout), hooked(before=before):
        model.hf(input_ids=IDS, use_cache=False)
        activations = {layer: units[layer].encode(seen[layer]) for layer in writers}
        for source in sources:
            with hooked([] if source is None else [_adding(model, units, activations, source)]):
                model.hf(input_ids=IDS, use_cache=False)
            places = [_parts(target) for target in targets]
            found.append(torch.stack([units[at].W_enc[feature] @ seen[at][p] for at, feature, p in places]))
    return found


def _adding(model: Model, units: DictionarySet, activations: dict[int, Tensor], source: str):
    layer, feature, position = _parts(source)
    step = 3 * activations[layer][position, feature] * units[layer].W_dec[feature]

    def add(args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        output = main_output(output).clone()
        output[0, position] += step
        return output

    return next(w.module for w in model.layout.of(layer) if w.name == "mlp"), add


def _parts(key: str) -> tuple[int, int, int]:
    layer, rest = key.split(".mlp.feature:")
    feature, position = rest.split("@")
    return int(layer), int(feature), int(position)


def _chunk(linear: Linearized, node: int) -> Chunk:
    return next(chunks(linear, torch.tensor([node])))


def test_a_row_is_the_same_alone_and_among_others() -> None:
    model = loaded("gemma2", torch.float64)
    linear = linearized(model, IDS, transcoders(model, skip=True), (0,))
    for chunk in chunks(linear, readable(linear)):
        solved, offset = solve(linear, chunk), linear.stream.groups[chunk.group].offset
        for i in range(0, len(chunk.node), 7):
            alone = solve(linear, _chunk(linear, offset + int(chunk.node[i])))
            dense = torch.zeros(2, linear.stream.nodes, dtype=torch.float64)
            dense[0, solved.columns], dense[1, alone.columns] = solved.values[i], alone.values[0]
            assert (dense[0] - dense[1]).abs().max() < 1e-13 * dense.abs().max()


def test_only_sources_at_or_before_a_target_and_below_it_have_columns() -> None:
    model = loaded("llama", torch.float64)
    linear = linearized(model, IDS, transcoders(model))
    stream = linear.stream
    position = torch.cat([group.position() for group in stream.groups])
    below = torch.cat([torch.full((len(g),), -1 if g.layer is None else g.layer) for g in stream.groups])
    for chunk in chunks(linear, readable(linear)):
        solved, layer = solve(linear, chunk), stream.groups[chunk.group].layer
        assert (below[solved.columns] < layer).all()
        late = position[solved.columns][None] > torch.tensor(chunk.position)[:, None]
        assert (solved.values[late] == 0).all()


def test_the_shortcut_at_the_lowest_attention_changes_nothing() -> None:
    model = loaded("gpt2", torch.float64)
    linear = linearized(model, IDS, transcoders(model))
    assert linear.stream.pairs is not None
    plain = replace(linear.stream, pairs=None)
    for chunk in chunks(linear, readable(linear)):
        reader = linear.readers[chunk.group]
        pulled = reader.pulled(chunk.node, torch.tensor(chunk.position))
        short = pull_rows(linear.stream, reader.stage, pulled.covector, chunk.position)
        long = pull_rows(plain, reader.stage, pulled.covector, chunk.position)
        assert torch.equal(short.columns, long.columns)
        assert (short.values - long.values).abs().max() < 1e-13 * long.values.abs().max()


def test_constants_are_what_a_stream_without_sources_would_say() -> None:
    model = loaded("gpt2", torch.float64)
    linear = linearized(model, IDS, transcoders(model))
    covector = torch.randn(2, model.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    last = len(linear.stream.stages)
    rows = pull_rows(linear.stream, last, covector, [3, 6])
    total = rows.values.sum(1) + constant_rows(linear.stream, last, covector, [3, 6])
    with torch.no_grad():
        seen = []
        with hooked(before=[(model.layout.final_norm, lambda a, k: seen.append(first_tensor(a, k)[0]))]):
            model.hf(input_ids=IDS, use_cache=False)
    assert (total - (covector * seen[0][[3, 6]]).sum(1)).abs().max() < 1e-10


def test_edges_are_compared_by_key() -> None:
    edges = Edges(["t"], ["a", "b"], torch.tensor([[1.0, 2.0]]), torch.zeros(1))
    assert furthest(edges, Edges(["t"], ["b", "a"], torch.tensor([[2.0, 1.0]]), torch.zeros(1))) == 0
