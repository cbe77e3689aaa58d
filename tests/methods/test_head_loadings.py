"""Head loadings against the frozen model itself, run with heads switched off."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, VOCAB, loaded, prompts
from whence.components.loading import load_dictionary
from whence.demo import PROMPT, dictionary_path, model_path
from whence.engine import edge_loadings
from whence.errors import LedgerError
from whence.methods.graph import attribution_graph
from whence.methods.head_loadings import head_loadings
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, replace_first
from whence.model.layout import Layout
from whence.model.model import Model
from whence.results.keys import Edge, Node
from whence.targets.custom import CustomTarget

VARIANTS = ("gpt_neox sequential", "stablelm parallel", "mistral window", "gemma2 window", "gpt_oss window")
TOKEN, SOURCE, LAST = 7, 2, 8
Switches = dict[int, list[float]]  # by layer, one factor a head


def edge_with_heads(layout: Layout, ids: Tensor) -> Callable[[Switches], float]:
    """The edge from what stands in the stream at SOURCE to a logit at LAST, as a function of what heads are on."""
    seen: dict[str, Tensor] = {}
    switches: Switches = {}

    def enter(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        seen["stream"] = first_tensor(args, kwargs).detach().clone().requires_grad_()
        return replace_first(args, kwargs, seen["stream"])

    def switch(layer: int) -> Callable[[tuple, dict], Any]:
        def before(args: tuple, kwargs: dict) -> Any:
            if layer not in switches:
                return None
            z = first_tensor(args, kwargs)
            factor = torch.tensor(switches[layer], dtype=z.dtype).repeat_interleave(z.shape[-1] // len(switches[layer]))
            return replace_first(args, kwargs, z * factor)

        return before

    def edge(chosen: Switches) -> float:
        switches.clear()
        switches.update(chosen)
        before = [(layout.blocks[0], enter), *((w.write, switch(w.layer)) for w in layout.attention)]
        with hooked([(layout.head, lambda _, __, out: seen.update(raw=out))], before):
            layout.hf(input_ids=ids, use_cache=False)
        (gradient,) = torch.autograd.grad(seen["raw"][0, LAST, TOKEN], seen["stream"])
        return layout.logit_scale * float((gradient[0, SOURCE] * seen["stream"][0, SOURCE].detach()).sum())

    return edge


@pytest.mark.parametrize("by", ["source", "target"])
@pytest.mark.parametrize("name", [*GRAPH_FAMILIES, *VARIANTS])
def test_a_loading_is_what_switching_the_head_on_adds(name: str, by: Any) -> None:
    model, ids = loaded(name, torch.float64), prompts(1, LAST + 1)
    embed, output = (
        Node("embed", index=int(ids[0, SOURCE]), position=SOURCE),
        Node("output", index=TOKEN, position=LAST),
    )
    positions = [] if model.layout.position is None else [Node("pos_embed", position=SOURCE)]
    found = head_loadings(model, None, ids, [(node, output) for node in (embed, *positions)], by=by)
    accuracy = 1e-7 if name == "olmo" else 1e-10  # its LayerNorm is float32 whatever its weights are
    heads, layers = 4, [writer.layer for writer in model.layout.attention]

    def on_or_off(layer: int, kept: list[float]) -> Switches:
        """Heads of this layer as given; layers before the layer on its way from the counted end are off."""
        off = [m for m in layers if (m < layer if by == "source" else m > layer)]
        return {m: [0.0] * heads for m in off} | {layer: kept}

    with frozen(model.layout):
        edge = edge_with_heads(model.layout, ids)
        edge({})  # records what is held
        for row, head in enumerate(found.heads):
            alone = [float(h == head.index) for h in range(heads)]
            expected = edge(on_or_off(head.layer or 0, alone)) - edge(on_or_off(head.layer or 0, [0.0] * heads))
            assert float(found.values[row].sum()) == pytest.approx(expected, abs=accuracy), str(head)
        assert float(found.weights.sum()) == pytest.approx(edge({}), abs=accuracy)
        nothing = edge({m: [0.0] * heads for m in layers})
        assert float(found.direct.sum()) == pytest.approx(nothing, abs=accuracy)


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model.from_pretrained(model_path())


@pytest.mark.parametrize("kind", ["transcoders", "cross_layer_transcoder"])
@pytest.mark.parametrize("by", ["source", "target"])
def test_loadings_sum_to_the_edges_of_the_graph(demo: Model, kind: str, by: Any) -> None:
    units = load_dictionary(dictionary_path(kind))
    graph = attribution_graph(demo, units, PROMPT, [" Austin"], max_nodes=8)
    targets, sources, weights = strongest(graph.weights.dense(), graph.nodes.of("bias", "rest").tolist())
    edges = [Edge(graph.nodes[s], graph.nodes[t]) for t, s in zip(targets, sources, strict=True)]
    found = head_loadings(demo, units, graph.input_tokens, edges, by=by)
    torch.testing.assert_close(found.weights, weights, atol=1e-5, rtol=1e-4)
    assert float(found.remainder.abs().max()) < 1e-5 * float(weights.abs().max())
    assert float(found.values.abs().max()) > 0.01


def strongest(dense: Tensor, left_out: list[int]) -> tuple[list[int], list[int], Tensor]:
    dense = dense.index_fill(1, torch.tensor(left_out), 0.0)
    places = dense.flatten().abs().topk(30).indices
    return (places // len(dense)).tolist(), (places % len(dense)).tolist(), dense.flatten()[places]


def test_an_edge_at_one_position_of_the_first_layer_is_direct_or_of_its_own_position() -> None:
    model, ids = loaded("llama"), prompts(1, 4)
    edges = [(f"embed:{int(ids[0, 3])}@3", "0.mlp.neuron:5@3"), (f"embed:{int(ids[0, 1])}@1", "0.mlp.neuron:5@3")]
    found = head_loadings(model, None, ids, edges)
    assert float(found.direct[0]) != 0
    assert float(found.direct[1]) == 0
    assert not found.values[4:].any()  # layers above the target carry nothing


def test_a_virtual_output_takes_its_direction_from_targets() -> None:
    model, ids = loaded("llama"), prompts(1, 4)
    direction = CustomTarget("one", 1.0, model.unembedding(torch.tensor([TOKEN]))[0])
    source = f"embed:{int(ids[0, 1])}@1"
    virtual = head_loadings(model, None, ids, [(source, f"output:{VOCAB}@3")], targets=[direction])
    token = head_loadings(model, None, ids, [(source, f"output:{TOKEN}@3")])
    torch.testing.assert_close(virtual.values, token.values)


@pytest.mark.parametrize(
    ("edge", "options", "error", "words"),
    [
        (("embed:5@1", "0.mlp.neuron:5"), {}, ValueError, "needs a position"),
        (("bias", "0.mlp.neuron:5@3"), {}, ValueError, "single sources"),
        (("0.mlp.neuron:5@1", "embed:0@2"), {}, KeyError, "not among"),
        (("0.mlp.neuron:5000@1", "1.mlp.neuron:5@3"), {}, KeyError, "not among"),
        (("0.mlp.neuron:5@1", "output:64@3"), {}, ValueError, "targets="),
        (("0.mlp.neuron:5@1", "output:3@3"), {"targets": torch.tensor([4])}, ValueError, "not among targets"),
        (("0.mlp.neuron:5@1", "1.mlp.neuron:5@3"), {"by": "head"}, ValueError, "'source' or 'target'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    edge: tuple[str, str], options: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        head_loadings(loaded("llama"), None, prompts(1, 4), [edge], **options)


def test_no_edges_and_targets_without_rows_are_refused() -> None:
    model, ids = loaded("llama"), prompts(1, 4)
    with pytest.raises(ValueError, match="edges= is empty"):
        head_loadings(model, None, ids, [])
    with pytest.raises(ValueError, match="has no row"):
        head_loadings(model, None, ids, [("0.mlp.neuron:5@1", f"embed:{int(ids[0, 2])}@2")])


def test_parts_that_miss_their_edge_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = edge_loadings.split_by_source

    def broken(*given: Any) -> Any:
        return [(loadings, direct + 1) for loadings, direct in whole(*given)]

    monkeypatch.setattr(edge_loadings, "split_by_source", broken)
    with pytest.raises(LedgerError, match="parts miss"):
        head_loadings(loaded("llama"), None, prompts(1, 4), [("0.mlp.neuron:5@1", "1.mlp.neuron:5@3")])


def test_progress_is_told_of_every_target() -> None:
    told: list[tuple[str, int, int | None]] = []
    edges = [("0.mlp.neuron:5@1", f"{layer}.mlp.neuron:5@3") for layer in (1, 2)]
    ids = prompts(1, 4)
    head_loadings(loaded("llama"), None, ids, edges, progress=lambda *args: told.append(args))
    assert told == [("loadings", 1, 2), ("loadings", 2, 2)]
