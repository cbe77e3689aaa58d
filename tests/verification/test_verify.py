"""A right graph passes, a wrong one does not, and each is told by measurement alone."""

import json
from dataclasses import replace

import pytest
import torch

import whence
from families import loaded
from verification.by_gradient import PROMPT, RELU, cross_layer, feature_graph, neuron_graph, noise, transcoders
from whence.components.dictionaries import CrossLayerTranscoder
from whence.components.neurons import Neurons
from whence.errors import VerificationError
from whence.interventions.kinds import ablate
from whence.interventions.running import intervene
from whence.interventions.session import Freeze
from whence.methods.graph import attribution_graph
from whence.results.weights import Weights
from whence.verification.verify import verify

FAMILIES = ("llama", "gpt2", "gemma2", "olmo2", "gptj", "opt", "granite", "mixtral")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_graph_of_gradients_is_borne_out_by_every_removal(name: str) -> None:
    dictionary = transcoders()
    report = verify(feature_graph(name, dictionary), loaded(name), dictionary, k=None)
    report.check(max_error=5e-4)
    assert report.frozen.spearman > 0.9999
    assert report.frozen.sign > 0.99
    assert report.live.spearman < report.frozen.spearman


def test_cross_layer_features_are_removed_at_every_layer_they_write() -> None:
    dictionary = cross_layer()
    verify(feature_graph("llama", dictionary), loaded("llama"), dictionary, k=None).check(max_error=5e-4)


def test_a_linear_skip_passes_its_part() -> None:
    dictionary = transcoders(W_skip=torch.randn(32, 32, generator=torch.Generator().manual_seed(4)) / 8)
    graph = feature_graph("llama", dictionary)
    verify(graph, loaded("llama"), dictionary, k=None).check(max_error=5e-4)
    with pytest.raises(VerificationError):
        verify(graph, loaded("llama"), transcoders(), k=None).check(max_error=5e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_neurons_are_nodes_with_their_gates_held(name: str) -> None:
    verify(neuron_graph(name), loaded(name), k=None).check(max_error=5e-4)


def test_a_logit_difference_moves_as_its_direction_says() -> None:
    model, dictionary = loaded("llama"), transcoders()
    rows = model.unembedding(torch.tensor([7, 23]))
    direction = rows[0] - rows[1]
    graph = feature_graph("llama", dictionary, vectors=direction[None])
    target = whence.CustomTarget(f"target {model.vocab_size}", 1.0, direction)
    verify(graph, model, dictionary, targets=[target], k=None).check(max_error=5e-4)
    keys = [str(graph.nodes[i]) for i in range(0, 40, 3) if graph.nodes[i].name.startswith("mlp.")]
    freeze = Freeze(attention=True, norms=True, layers=range(3))
    outcome = intervene(model, PROMPT, [[ablate(key)] for key in keys], dictionary=dictionary, freeze=freeze)
    predicted = -graph.weights.dense()[-1, [graph.nodes.find(key) for key in keys]]
    torch.testing.assert_close(outcome.change(whence.logit_difference(7, 23))[:, 0, 0], predicted, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="pass them as targets="):
        verify(graph, model, dictionary)
    with pytest.raises(ValueError, match="pass those it was made with"):
        verify(graph, model, dictionary, targets=[target._replace(token_str="other")])


def test_one_wrong_weight_is_found_and_named() -> None:
    dictionary = transcoders()
    graph = feature_graph("llama", dictionary)
    dense = graph.weights.dense()
    row, column = len(dense) - 1, graph.nodes.find(f"embed:{int(PROMPT[3])}@3")
    dense[row, column] += 0.5 * float(dense[:, column].abs().max())
    report = verify(replace(graph, weights=Weights.from_dense(dense)), loaded("llama"), dictionary, k=None)
    assert report.worst(1)[0][:2] == (str(graph.nodes[column]), str(graph.nodes[row]))
    with pytest.raises(VerificationError, match=f"removing embed:{int(PROMPT[3])}@3 changes output:23@8"):
        report.check()


def test_a_missing_edge_is_an_error_too() -> None:
    dictionary = transcoders()
    graph = feature_graph("llama", dictionary)
    dense = graph.weights.dense()
    column = graph.nodes.find(f"embed:{int(PROMPT[3])}@3")
    dense[int(dense[:, column].abs().argmax()), column] = 0
    report = verify(replace(graph, weights=Weights.from_dense(dense)), loaded("llama"), dictionary, k=None)
    assert report.frozen.max_error > 0.5


def test_the_strongest_or_the_named_nodes_are_removed() -> None:
    dictionary = transcoders()
    graph, model = feature_graph("llama", dictionary), loaded("llama")
    strength = graph.weights.dense().abs().sum(0)
    report = verify(graph, model, dictionary, k=5)
    assert report.nodes == tuple(str(graph.nodes[i]) for i in strength.topk(5).indices.tolist())
    some = verify(graph, model, dictionary, nodes=["1.mlp.error@3", graph.nodes[0]])
    assert some.nodes == ("1.mlp.error@3", str(graph.nodes[0]))
    with pytest.raises(KeyError, match=r"1\.mlp\.error@77"):
        verify(graph, model, dictionary, nodes=["1.mlp.error@77"])


def test_small_batches_measure_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, done = transcoders(), []
    graph, model = feature_graph("llama", dictionary), loaded("llama")
    whole = verify(graph, model, dictionary, k=10)
    monkeypatch.setattr("whence.verification.verify.TOKENS_AT_ONCE", 27)
    parts = verify(graph, model, dictionary, k=10, progress=lambda stage, n, total: done.append((stage, n, total)))
    assert parts.live.spearman == pytest.approx(whole.live.spearman, abs=1e-4)
    assert done[:4] == [("verify, frozen", n, 10) for n in (3, 6, 9, 10)]


def test_a_report_prints_and_is_plain_data() -> None:
    dictionary = transcoders()
    report = verify(feature_graph("llama", dictionary), loaded("llama"), dictionary, k=4)
    assert repr(report).startswith("VerificationReport(4 nodes")
    assert "furthest off, frozen:" in str(report)
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["frozen"]["max_error"] == report.frozen.max_error
    assert plain["nodes"] == list(report.nodes)


def test_live_gates_name_what_fails() -> None:
    dictionary = transcoders()
    report = verify(feature_graph("llama", dictionary), loaded("llama"), dictionary, k=8)
    report.check(spearman=0.0, sign=0.0)
    with pytest.raises(VerificationError, match="spearman of predicted and live effects"):
        report.check(spearman=1.01)
    with pytest.raises(VerificationError, match="sign of predicted and live effects"):
        report.check(sign=1.01)


def test_a_graph_of_something_else_is_refused() -> None:
    dictionary = transcoders()
    graph = feature_graph("llama", dictionary)
    with pytest.raises(ValueError, match="pass that dictionary"):
        verify(graph, loaded("llama"))
    with pytest.raises(ValueError, match="a model with 99 logits"):
        verify(replace(graph, vocab_size=99), loaded("llama"), dictionary)
    with pytest.raises(ValueError, match="leave dictionary= out"):
        verify(neuron_graph("llama"), loaded("llama"), dictionary)
    derived = replace(neuron_graph("llama"), provenance={"dictionary": Neurons("derivative").describe()})
    with pytest.raises(ValueError, match="first-order estimates"):
        verify(derived, loaded("llama"))


@pytest.mark.parametrize("name", ["transcoders", "cross_layer_transcoder", None])
@pytest.mark.parametrize("parity", [None, "circuit-tracer"])
def test_the_engines_graph_of_the_demo_is_borne_out(name: str | None, parity: str | None) -> None:
    model = whence.Model.from_pretrained(
        whence.demo.model_path(), dtype="float64"
    )  # rounding of 32 bits would hide a small mistake
    dictionary = None if name is None else whence.load_dictionary(whence.demo.dictionary_path(name))
    graph = attribution_graph(model, dictionary, whence.demo.PROMPT, max_nodes=300, parity=parity)
    report = verify(graph, model, dictionary, k=None)
    report.check(max_error=1e-10)
    assert report.frozen.spearman > 0.9999


SKIP = torch.randn(32, 32, generator=torch.Generator().manual_seed(4)) / 8
BEGINNING = torch.cat([torch.tensor([0]), PROMPT[1:]])  # 0 is the families' first token


@pytest.mark.parametrize("parity", [None, "circuit-tracer"])
@pytest.mark.parametrize("ids", [PROMPT, BEGINNING], ids=["any first token", "special first token"])
def test_a_skip_is_held_where_the_graph_takes_the_write_as_a_whole(ids: torch.Tensor, parity: str | None) -> None:
    model, dictionary = loaded("llama"), transcoders(W_skip=SKIP)
    graph = attribution_graph(model, dictionary, ids, parity=parity)
    assert graph.provenance["bos"] == ([0] if parity or ids is BEGINNING else [])
    verify(graph, model, dictionary, k=None).check(max_error=5e-4)


def test_errors_of_layers_that_are_written_and_not_read_can_be_removed() -> None:
    dictionary = CrossLayerTranscoder(
        W_enc=(noise(6, 32), noise(6, 32, seed=1)),
        b_enc=(noise(6), noise(6)),
        W_dec=(noise(6, 3, 32, seed=2), noise(6, 2, 32, seed=3)),
        b_dec=(noise(32), noise(32)),
        activation=RELU,
        layers=(0, 1),
    )
    graph = attribution_graph(loaded("llama"), dictionary, PROMPT)
    assert "2.mlp.error@3" in map(str, graph.nodes)
    verify(graph, loaded("llama"), dictionary, k=None).check(max_error=5e-4)


def test_of_a_pruned_graph_the_edges_that_are_left_are_compared() -> None:
    model, dictionary = loaded("llama"), transcoders()
    graph = attribution_graph(model, dictionary, PROMPT).prune(0.5, 0.7)
    report = verify(graph, model, dictionary, k=None)
    report.check(max_error=5e-4)
    assert report.pruned
    assert report.to_json()["pruned"] is True
    assert "the graph is pruned" in str(report)
    dense = graph.weights.dense()
    row, column = (dense.abs() == dense.abs().max()).nonzero()[0].tolist()
    dense[row, column] *= 1.5
    wrong = verify(replace(graph, weights=Weights.from_dense(dense)), model, dictionary, k=None)
    assert wrong.worst(1)[0][:2] == (str(graph.nodes[column]), str(graph.nodes[row]))
    with pytest.raises(VerificationError):
        wrong.check()


@pytest.mark.parametrize("parity", [None, "circuit-tracer"])
def test_a_graph_is_verified_with_the_logit_difference_it_was_made_with(parity: str | None) -> None:
    model, dictionary, target = loaded("llama"), transcoders(), whence.logit_difference(7, 23)
    graph = attribution_graph(model, dictionary, PROMPT, target, parity=parity)
    verify(graph, model, dictionary, targets=target).check(max_error=5e-4)
    with pytest.raises(ValueError, match="pass those it was made with"):
        verify(graph, model, dictionary, targets=whence.logit_difference(7, 22))
