"""A circuit set by hand, weight by weight: its nodes, effects and edges are found, and no others, in closed form.

"A first, C here": on A, layer 0 notes; on the other token, P, it notes the opposite, half as much. An attention of
layer 1 carries the note (and a little of A itself) to the last token, where layer 1 answers if C is there. Norms are so
wide that they do not bend, patterns uniform, units of the MLPs ReLUs: everything is linear between the kinks.

    note        n = 1 on A, -0.5 on P
    carried     k = n + 0.3 a = 1.6, -0.5       (gain 3, one of three tokens)
    answer      s = 2 (k + 4 - 3) = 5.2, 1.0
    metric      -k - 5 s = -27.6, -4.5          total +23.1
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from whence.components.activation import Activation
from whence.components.sae import SAE
from whence.components.sets import DictionarySet
from whence.components.sites import Site
from whence.components.transcoder import Transcoder
from whence.methods.circuit import feature_circuit
from whence.methods.circuit_object import Circuit
from whence.model.model import Model
from whence.targets.pairs import Pairs

WIDTH, UNITS = 16, 4
A, P, B, C, NOTED, CARRIED, ANSWER, NOISE = range(8)  # directions of the stream
CLEAN_ANSWER, PATCH_ANSWER = 5, 6
PAIRS = Pairs(((1, 3, 4),), ((2, 3, 4),), (CLEAN_ANSWER,), (PATCH_ANSWER,))  # A B C, P B C
WIDE_NORM = 1e14

# Per layer, for each unit: what it reads, its bias, what it writes.
MLPS: list[list[tuple[dict[int, float], float, dict[int, float]]]] = [
    [({A: 1}, -1, {NOTED: 1}), ({P: 1}, -1, {NOTED: -0.5}), ({B: 1}, -1, {NOISE: 1})],
    [({CARRIED: 1, C: 1}, -3, {ANSWER: 2}), ({B: 1}, -1, {NOISE: 1})],
]
# Features of the SAEs: what each reads and writes, and its bias; 0 and 1 of the first two look both ways.
FEATURES: dict[tuple[int, Site], list[tuple[dict[int, float], float]]] = {
    (0, "resid_post"): [({NOTED: 1}, 0), ({NOTED: -1}, 0), ({B: 1}, 0)],
    (1, "attn_out"): [({CARRIED: 1}, 0), ({CARRIED: -1}, 0)],
    (1, "mlp_out"): [({NOISE: 1}, 0), ({ANSWER: 1}, -0.2)],
    (1, "resid_post"): [({ANSWER: 1}, 0), ({NOISE: 1}, 0), ({B: 1}, 0), ({CARRIED: 1}, 0)],
}

EFFECTS = {
    "embed": 28.6,  # as if A's note fell all the way from 2, at the clean slope: 3.3 * 2 + 11 * 2
    "0.mlp.feature:0": 11,
    "0.mlp.feature:1": 5.5,
    "0.resid_post.feature:0": 11,
    "0.resid_post.feature:1": 5.5,
    "0.resid_post.error": 6.6,  # A itself, which no feature reads
    "1.attn_out.feature:0": 17.6,
    "1.attn_out.feature:1": 5.5,
    "1.mlp_out.feature:1": 21,
    "1.resid_post.feature:0": 21,
    "1.resid_post.feature:3": 1.6,
    "1.resid_post.error": 0.5,  # the carried note below 0
    "metric": 23.1,
}
EDGES = {
    ("embed", "0.mlp.feature:0"): 22,
    ("embed", "0.resid_post.error"): 6.6,
    ("0.mlp.feature:0", "0.resid_post.feature:0"): 11,
    ("0.mlp.feature:1", "0.resid_post.feature:0"): 5.5,
    ("0.resid_post.feature:0", "1.attn_out.feature:0"): 11,
    ("0.resid_post.feature:1", "1.attn_out.feature:0"): 5.5,
    ("0.resid_post.error", "1.attn_out.feature:0"): 6.6,
    ("1.attn_out.feature:0", "1.mlp_out.feature:1"): 16,
    ("1.attn_out.feature:0", "1.resid_post.feature:3"): 1.6,
    ("1.attn_out.feature:1", "1.mlp_out.feature:1"): 5,
    ("1.attn_out.feature:1", "1.resid_post.feature:3"): 0.5,
    ("1.mlp_out.feature:1", "1.resid_post.feature:0"): 21,
    ("1.resid_post.feature:0", "metric"): 21,
    ("1.resid_post.feature:3", "metric"): 1.6,
    ("1.resid_post.error", "metric"): 0.5,
}
CLOSED = ("0.mlp.feature:1", "0.resid_post.feature:1", "1.attn_out.feature:1")  # they say nothing on the clean prompt


def direction(parts: dict[int, float]) -> Tensor:
    vector = torch.zeros(WIDTH, dtype=torch.float64)
    for place, size in parts.items():
        vector[place] = size
    return vector


def stacked(rows: list[dict[int, float]]) -> Tensor:
    return torch.stack([direction(row) for row in rows])


def dictionaries() -> list[SAE | DictionarySet]:
    relu, none = Activation("relu"), torch.zeros(WIDTH, dtype=torch.float64)
    found: list[SAE | DictionarySet] = []
    for (layer, site), features in FEATURES.items():
        rows, biases = stacked([row for row, _ in features]), torch.tensor([float(bias) for _, bias in features])
        found.append(SAE(layer, rows, biases.double(), rows.clone(), none, relu, site))
    reads, biases, writes = zip(*MLPS[0], strict=True)
    bias = torch.tensor(biases, dtype=torch.float64)
    found.append(DictionarySet((Transcoder(0, stacked(list(reads)), bias, stacked(list(writes)), none, relu),)))
    return found


@torch.no_grad()
def planted() -> Model:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=WIDTH,
        intermediate_size=UNITS,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        hidden_act="relu",
        mlp_bias=True,
        rms_norm_eps=WIDE_NORM,
        bos_token_id=0,
        eos_token_id=7,
    )
    hf = LlamaForCausalLM(config).eval().double()
    for name, parameter in hf.named_parameters():
        parameter.fill_(WIDE_NORM**0.5 if "norm" in name else 0.0)
    for token, parts in enumerate(({}, {A: 2}, {P: 2}, {B: 4}, {C: 4})):
        hf.model.embed_tokens.weight[token] = direction(parts)
    for layer, units in enumerate(MLPS):
        mlp = hf.model.layers[layer].mlp
        mlp.up_proj.bias.fill_(1.0)  # relu(gate) * 1
        for unit, (reads, bias, writes) in enumerate(units):
            mlp.gate_proj.weight[unit], mlp.gate_proj.bias[unit] = direction(reads), bias
            mlp.down_proj.weight[:, unit] = direction(writes)
    attention = hf.model.layers[1].self_attn
    attention.v_proj.weight[0] = direction({NOTED: 1, A: 0.3})
    attention.o_proj.weight[CARRIED, 0] = 3.0
    hf.lm_head.weight[CLEAN_ANSWER, ANSWER] = 5.0
    hf.lm_head.weight[PATCH_ANSWER, CARRIED] = -1.0
    return Model(hf)


def circuit(**settings: object) -> Circuit:
    thresholds = {"node_threshold": 1e-4, "edge_threshold": 1e-4}
    return feature_circuit(planted(), dictionaries(), PAIRS, **thresholds, **settings)


def edges_of(found: Circuit) -> dict[tuple[str, str], float]:
    return {(str(edge.source), str(edge.target)): edge.weight for edge in found.edges(1000)}


def effects_of(found: Circuit) -> dict[str, float]:
    return dict(zip(map(str, found.nodes), found.effects.tolist(), strict=True))


def test_nodes_and_effects_are_those_planted_and_no_others() -> None:
    assert effects_of(circuit(method="gradient")) == pytest.approx(EFFECTS, rel=1e-6)


def test_edges_are_those_planted_and_no_others() -> None:
    assert edges_of(circuit(method="gradient")) == pytest.approx(EDGES, rel=1e-6)


def test_nodes_that_say_nothing_on_the_clean_prompt_are_counted_and_have_no_in_edges() -> None:
    found = circuit(method="gradient")
    assert found.provenance["report"]["closed gates"] == len(CLOSED)
    for key in CLOSED:
        assert not found.into(key)


def test_positions_that_are_kept_are_where_the_units_are() -> None:
    found = circuit(method="gradient", aggregate="none")
    first = ("embed", "0.mlp", "0.resid_post")
    keys = [f"{key}@{0 if key.startswith(first) else 2}" for key in EFFECTS if key != "metric"]
    assert effects_of(found) == pytest.approx(dict(zip([*keys, "metric"], EFFECTS.values(), strict=True)), rel=1e-6)


@pytest.mark.parametrize("method", ["integrated_gradients", "exact"])
def test_effects_along_the_way_are_the_true_ones_where_the_way_bends(method: str) -> None:
    found = effects_of(circuit(method=method))
    expected = EFFECTS | {"embed": 23.1}  # A's note is gone halfway, P's comes in the other half
    assert found == pytest.approx(expected, rel=1e-6)


def test_integrated_edges_open_the_gates_and_sum_to_what_the_parents_do() -> None:
    """The kinks lie at 1/2, 2/3 and 16/21 of the way, between the points; in-edges sum to slope times movement."""
    found = circuit(method="gradient", edge_gradient="integrated_gradients", steps=42)
    into: dict[str, float] = {}
    for (_, target), weight in edges_of(found).items():
        into[target] = into.get(target, 0.0) + weight
    assert into == pytest.approx({key: effect for key, effect in EFFECTS.items() if key != "embed"}, rel=1e-6)


def test_edges_of_ends_that_no_path_joins_are_not_there() -> None:
    """A feature that reads the note is not reached by A itself, nor the answer by what the last stream adds."""
    found = edges_of(circuit(method="gradient"))
    assert ("embed", "0.resid_post.feature:0") not in found
    assert ("1.attn_out.feature:0", "1.resid_post.feature:0") not in found
    assert ("0.resid_post.feature:0", "1.mlp_out.feature:1") not in found


def test_saving_changes_nothing(tmp_path: Path) -> None:
    found = circuit(method="gradient")
    again = Circuit.load(found.save(tmp_path / "circuit"))
    assert effects_of(again) == effects_of(found)
    assert edges_of(again) == edges_of(found)
    assert again.provenance == found.provenance
