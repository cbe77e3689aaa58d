"""A circuit set by hand, weight by weight: the graph holds its nodes and edges, no others, at their closed-form sizes.

"A earlier and B here": a feature of layer 0 notes A; a head of layer 1 carries that note on; a feature of layer 1 fires
where the note meets B; a head of layer 2 carries that on, and a feature of layer 2 writes the answer. Patterns are
uniform (queries are zero), norms divide by the root mean square alone, and MLPs are what the transcoders say.
"""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from whence.components.activation import Activation
from whence.components.sets import DictionarySet
from whence.components.transcoder import Transcoder
from whence.methods.graph import attribution_graph
from whence.model.model import Model
from whence.results.graph import Graph

WIDTH, UNITS = 16, 4
A, B, C, NOTED, CARRIED, B_HERE, MET, MET_BEFORE, NOISE, ANSWER = range(10)  # directions of the stream
ANSWER_TOKEN, C_TOKEN = 4, 5
IDS = torch.tensor([[1, 2, 3]])  # A, B, C

# Per layer, for each unit: what it reads, its bias, what it writes. Units named below; the others never fire.
CIRCUIT: list[list[tuple[dict[int, float], float, dict[int, float]]]] = [
    [({A: 1}, -1, {NOTED: 1}), ({B: 1}, -1, {B_HERE: 1}), ({C: 1}, -1, {NOISE: 1}), ({A: -1}, -1, {ANSWER: 1})],
    [({CARRIED: 1, B_HERE: 1}, -3, {MET: 2}), ({A: 1}, -1, {NOISE: 1}), ({C: -1}, -1, {ANSWER: 1})],
    [({MET_BEFORE: 1}, -0.25, {ANSWER: 1}), ({MET_BEFORE: -1}, 0, {NOISE: 1})],
]


def direction(parts: dict[int, float]) -> Tensor:
    vector = torch.zeros(WIDTH, dtype=torch.float64)
    for place, size in parts.items():
        vector[place] = size
    return vector


def transcoder(layer: int) -> Transcoder:
    units = CIRCUIT[layer] + [({}, -1, {})] * (UNITS - len(CIRCUIT[layer]))
    reads, biases, writes = zip(*units, strict=True)
    return Transcoder(
        layer,
        torch.stack([direction(read) for read in reads]),
        torch.tensor(biases, dtype=torch.float64),
        torch.stack([direction(write) for write in writes]),
        torch.zeros(WIDTH, dtype=torch.float64),
        Activation("relu"),
    )


@torch.no_grad()
def planted() -> Model:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=WIDTH,
        intermediate_size=UNITS,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        hidden_act="relu",
        mlp_bias=True,
        rms_norm_eps=0.0,
        bos_token_id=0,
        eos_token_id=7,
    )
    hf = LlamaForCausalLM(config).eval().double()
    for name, parameter in hf.named_parameters():
        parameter.fill_(1.0 if "norm" in name else 0.0)
    for token, place in enumerate((WIDTH - 1, A, B, C)):
        hf.model.embed_tokens.weight[token::4, place] = 4.0
    for layer, block in enumerate(hf.model.layers):
        unit = transcoder(layer)
        block.mlp.gate_proj.weight.copy_(unit.W_enc)
        block.mlp.gate_proj.bias.copy_(unit.b_enc)
        block.mlp.up_proj.bias.fill_(1.0)  # relu(gate) * 1
        block.mlp.down_proj.weight.copy_(unit.W_dec.T)
    for layer, read, write, gain in ((1, NOTED, CARRIED, 2.0), (2, MET, MET_BEFORE, 3.0)):
        attention = hf.model.layers[layer].self_attn
        attention.v_proj.weight[layer, read] = 1.0
        attention.o_proj.weight[write, layer] = gain
    hf.lm_head.weight[ANSWER_TOKEN, ANSWER] = 5.0
    hf.lm_head.weight[C_TOKEN, C] = 1.0
    return Model(hf)


def scale(*parts: float) -> float:
    """What a norm divides by where the stream has these parts in different directions."""
    return (sum(part**2 for part in parts) / WIDTH) ** 0.5


def edges_by_hand() -> dict[tuple[str, str], float]:
    noted = 4 - 1  # every unit of layer 0: pre-activation 4, bias -1
    one = scale(4, noted)  # in front of layer 1's attention, at every position
    carried = [2 * noted / one / (p + 1) for p in range(3)]
    mid = [scale(4, noted, carried[p]) for p in range(3)]  # in front of layer 1's MLP
    met = (carried[1] + noted) / mid[1] - 3
    two = scale(4, noted, carried[1], 2 * met)  # in front of layer 2's attention, at B
    before = [0, 3 * 2 * met / two / 2, 3 * 2 * met / two / 3]
    at_b, at_c = scale(4, noted, carried[1], 2 * met, before[1]), scale(4, noted, carried[2], before[2])
    answer = before[2] / at_c - 0.25
    final = scale(4, noted, carried[2], before[2], answer)
    return {
        ("embed:1@0", "0.mlp.feature:0@0"): 4,
        ("embed:2@1", "0.mlp.feature:1@1"): 4,
        ("embed:3@2", "0.mlp.feature:2@2"): 4,
        ("embed:1@0", "1.mlp.feature:1@0"): 4 / mid[0],
        ("0.mlp.feature:0@0", "1.mlp.feature:0@1"): carried[1] / mid[1],
        ("0.mlp.feature:1@1", "1.mlp.feature:0@1"): noted / mid[1],
        ("1.mlp.feature:0@1", "2.mlp.feature:0@1"): before[1] / at_b,
        ("1.mlp.feature:0@1", "2.mlp.feature:0@2"): before[2] / at_c,
        ("2.mlp.feature:0@2", f"output:{ANSWER_TOKEN}@2"): 5 * answer / final,
        ("embed:3@2", f"output:{C_TOKEN}@2"): 4 / final,
    }


@pytest.fixture(scope="module")
def graph() -> Graph:
    units = DictionarySet(tuple(transcoder(layer) for layer in range(3)))
    return attribution_graph(planted(), units, IDS, torch.tensor([ANSWER_TOKEN, C_TOKEN]))


def test_the_nodes_are_those_of_the_planted_circuit(graph: Graph) -> None:
    expected = [f"0.mlp.feature:{i}@{i}" for i in range(3)]
    expected += ["1.mlp.feature:1@0", "1.mlp.feature:0@1", "2.mlp.feature:0@1", "2.mlp.feature:0@2"]
    expected += [f"{layer}.mlp.error@{p}" for layer in range(3) for p in range(3)]
    expected += ["embed:1@0", "embed:2@1", "embed:3@2", "bias", f"output:{ANSWER_TOKEN}@2", f"output:{C_TOKEN}@2"]
    assert [str(node) for node in graph.nodes] == expected


def test_the_edges_are_those_of_the_planted_circuit_and_no_others(graph: Graph) -> None:
    keys = [str(node) for node in graph.nodes]
    rows, columns, values = graph.weights.coo()
    found = {(keys[s], keys[t]): w for t, s, w in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True)}
    real = {edge for edge, weight in found.items() if abs(weight) > 1e-12}  # an error is a difference of equal numbers
    expected = edges_by_hand()
    assert real == set(expected)
    for edge, weight in expected.items():
        assert found[edge] == pytest.approx(weight, rel=1e-6), edge


def test_influence_follows_the_circuit_and_not_the_distractors(graph: Graph) -> None:
    by_key = dict(zip(map(str, graph.nodes), graph.influence().tolist(), strict=True))
    on_the_way = ["0.mlp.feature:0@0", "0.mlp.feature:1@1", "1.mlp.feature:0@1", "2.mlp.feature:0@2", "embed:1@0"]
    assert min(by_key[key] for key in on_the_way) > 0.01
    for key in ("0.mlp.feature:2@2", "1.mlp.feature:1@0", "2.mlp.feature:0@1"):
        assert by_key[key] < 1e-9
