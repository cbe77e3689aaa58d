"""QK attribution by hand, against the frozen model, and its ledger on every family."""

from typing import Any

import pytest
import torch
from torch import Tensor

from families import GRAPH_FAMILIES, build, loaded, prompts
from whence.components.loading import load_dictionary
from whence.components.neurons import Neurons
from whence.demo import PROMPT, dictionary_path, model_path
from whence.engine import qk as engine
from whence.engine.query_key import Side, query_key
from whence.errors import LedgerError, UnsupportedModelError
from whence.methods.qk import qk_attribution
from whence.model.freeze import frozen
from whence.model.hooks import first_tensor, hooked, replace_first
from whence.model.model import Model
from whence.results.keys import Node

VARIANTS = ("gpt_neox sequential", "stablelm parallel", "mistral window", "gemma2 window", "gpt_oss window")
EVERY = [*GRAPH_FAMILIES, *VARIANTS]


def key_of(model: Model, query: int = 7, key: int = 6, head: int = 3) -> str:
    return f"{model.layout.attention[-1].layer}.attn.head:{head}.qk@{query}~{key}"


@pytest.mark.parametrize("name", EVERY)
def test_pairs_sum_to_the_score(name: str) -> None:
    model = loaded(name)
    found = qk_attribution(model, None, prompts(1, 9), key_of(model))
    assert abs(found.remainder) <= 1e-6 * found.magnitude
    assert float(found.matrix.double().sum()) == pytest.approx(found.score, abs=1e-5 * found.magnitude)
    assert found.query_nodes[len(found.query_nodes) - 1] == Node("bias")


@pytest.mark.parametrize("kind", ["transcoders", "cross_layer_transcoder"])
def test_pairs_of_features_sum_to_the_score(kind: str) -> None:
    model = Model.from_pretrained(model_path())
    found = qk_attribution(model, load_dictionary(dictionary_path(kind)), PROMPT, "2.attn.head:1.qk@7~3")
    assert abs(found.remainder) < 1e-6 * found.magnitude
    assert len(found.query_nodes.of("mlp.feature")) > 0
    assert int(found.key_nodes.position.max()) == 3  # nothing after the key reaches it


def test_a_score_of_the_first_layer_is_two_rotated_embeddings() -> None:
    settings = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    tokens = {"vocab_size": 5, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    model = Model(build("llama", {**settings, **tokens}, torch.float64))
    block = model.hf.model.layers[0]
    ids = [3, 1, 4]

    def normed(token: int) -> Tensor:
        x = model.hf.model.embed_tokens.weight[token]
        return block.input_layernorm.weight * x / (x.square().mean() + model.hf.config.rms_norm_eps).sqrt()

    def rotated(x: Tensor, position: int) -> Tensor:  # channels (0, 2) turn by 1 a position, (1, 3) by 1 / 100
        angles = torch.tensor([1.0, 0.01], dtype=torch.float64) * position
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([x[:2] * cos - x[2:] * sin, x[2:] * cos + x[:2] * sin])

    with torch.no_grad():
        query = rotated(block.self_attn.q_proj.weight @ normed(ids[2]), 2)
        key = rotated(block.self_attn.k_proj.weight @ normed(ids[1]), 1)
    found = qk_attribution(model, None, ids, "0.attn.head:0.qk@2~1")
    assert found.score == pytest.approx(float(query @ key) / 2, rel=1e-6)  # it norms and rotates in float32
    assert [str(node) for node in found.query_nodes] == ["embed:4@2", "bias"]
    assert [str(node) for node in found.key_nodes] == ["embed:1@1", "bias"]
    assert float(found.matrix[0, 0]) == pytest.approx(found.score, rel=1e-6)


@pytest.mark.parametrize("name", ["llama", "phi", "gpt_neox", "stablelm", "qwen3", "olmo2", "gpt2", "opt", "gptj"])
def test_a_token_adds_what_the_frozen_model_carries_of_it(name: str) -> None:
    model, ids = loaded(name, torch.float64), prompts(1, 9)
    writer, norms = model.layout.attention[-1], model.layout.position is not None
    found = qk_attribution(model, None, ids, key_of(model))
    zero = torch.zeros((), dtype=torch.float64)
    whole = query_key(model.layout, model.batch(ids), writer, 3, 7, 6, zero)
    names = ("embed", "pos_embed") if norms else ("embed",)
    for side, position, nodes, vectors, scaling in (
        (whole.query, 7, found.query_nodes, found.query_vectors, whole.scaling),
        (whole.key, 6, found.key_nodes, found.key_vectors, 1.0),
    ):
        expected = scaling * carried(model, ids, side, position)
        for source in (2, position):
            rows = [i for i in nodes.of(*names).tolist() if int(nodes.position[i]) == source]
            torch.testing.assert_close(vectors[rows].sum(0), expected[:, source], atol=1e-10, rtol=1e-8)


def carried(model: Model, ids: Tensor, side: Side, position: int) -> Tensor:
    """What the first stream at each position adds to the side, by autograd: [d_head, position]."""
    seen: dict[str, Tensor] = {}

    def enter(args: tuple, kwargs: dict) -> Any:
        seen["stream"] = first_tensor(args, kwargs).detach().clone().requires_grad_()
        return replace_first(args, kwargs, seen["stream"])

    def read(args: tuple, kwargs: dict) -> None:
        seen["read"] = first_tensor(args, kwargs)

    with (
        frozen(model.layout),
        hooked(before=[(model.layout.blocks[0], enter), (model.layout.attention[-1].module, read)]),
    ):
        model.hf(input_ids=ids, use_cache=False)
    channels = side.rows @ seen["read"].reshape(-1, model.d_model)[position]
    pulled = [torch.autograd.grad(channel, seen["stream"], retain_graph=True)[0][0] for channel in channels]
    return (torch.stack(pulled) * seen["stream"].detach()).sum(-1)


def test_a_gated_neuron_by_its_derivative_writes_the_same() -> None:
    model, ids = loaded("llama", torch.float64), prompts(1, 9)
    one, other = (qk_attribution(model, units, ids, key_of(model)) for units in (None, Neurons(gate="derivative")))
    torch.testing.assert_close(one.matrix, other.matrix)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("2.attn.head:1@7~3", "is no attention score"),
        ("2.attn.head:1.q@7~3", "is no attention score"),
        ("2.attn.head:1.qk@7", "is no attention score"),
        ("2.mlp", "is no attention score"),
        ("2.attn.head:1.qk@3~7", "later position"),
        ("9.attn.head:1.qk@7~3", "layer 9 has no attention; it is in 0, 1, 2"),
        ("2.attn.head:4.qk@7~3", "has 4 heads"),
        ("2.attn.head:1.qk@9~3", "position"),
    ],
)
def test_a_score_that_is_not_there_is_refused(score: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qk_attribution(loaded("llama"), None, prompts(1, 9), score)


def test_a_family_without_frozen_attention_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be held"):
        qk_attribution(loaded("bloom"), None, prompts(1, 9), "2.attn.head:1.qk@7~3")


def test_sources_that_miss_the_query_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "constant_rows", lambda *given: torch.ones(len(given[3])))
    with pytest.raises(LedgerError, match="parts miss"):
        qk_attribution(loaded("llama"), None, prompts(1, 9), "2.attn.head:1.qk@7~3")
