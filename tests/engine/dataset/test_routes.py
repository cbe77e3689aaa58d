from functools import cache

import pytest
import torch

from dataset_parts import TOKENS, random_parts, small, wired
from whence.engine.dataset.routes import Route
from whence.engine.dataset.wired import Options, Wired
from whence.results.dataset_axes import METRICS


@cache
def llama(*, spd: bool = False) -> Wired:
    model = small("llama biased")
    return wired(model, random_parts(model), Options(METRICS, spd=spd))


def into(wiring: Wired, target: str) -> dict[str, Route]:
    """Routes by source, of components alone."""
    return {s: r for (t, s), r in wiring.routes.items() if t == target and not s.endswith((".delta", ".bias"))}


@pytest.mark.parametrize("end", ["attn.q", "attn.k", "attn.v"])
def test_queries_keys_and_values_read_the_embedding_and_what_earlier_blocks_wrote(end: str) -> None:
    assert into(llama(), f"0.{end}") == {"embed": "stream"}
    assert into(llama(), f"1.{end}") == dict.fromkeys(("embed", "0.attn.o", "0.glu.down"), "stream")


@pytest.mark.parametrize("end", ["glu.gate", "glu.up"])
def test_an_mlp_reads_the_attention_of_its_own_block_too(end: str) -> None:
    assert into(llama(), f"1.{end}") == dict.fromkeys(("embed", "0.attn.o", "0.glu.down", "1.attn.o"), "stream")


def test_output_maps_read_their_own_sublayer_alone() -> None:
    assert into(llama(), "1.attn.o") == {"1.attn.q": "scores", "1.attn.k": "scores", "1.attn.v": "values"}
    assert into(llama(), "1.glu.down") == {"1.glu.gate": "pointwise", "1.glu.up": "pointwise"}


@pytest.mark.parametrize("target", ["output", "output.stream"])
def test_logits_read_everything_that_was_written_to_the_stream(target: str) -> None:
    writers = ("embed", "0.attn.o", "0.glu.down", "1.attn.o", "1.glu.down")
    assert into(llama(), target) == dict.fromkeys(writers, "stream")


def test_what_is_left_of_a_matrix_goes_where_its_components_go() -> None:
    routes = llama().routes
    for (target, source), route in routes.items():
        if source != "embed" and not source.endswith((".delta", ".bias")):
            assert routes[target, f"{source}.delta"] == route
            assert routes[target, f"{source}.bias"] == route


def test_a_gated_model_of_two_blocks_has_that_many_pairs() -> None:
    # q, k, v, gate, up read the embedding and three sources (components, delta, bias) of each earlier writer; an
    # attention's output map reads nine, an MLP's six; two kinds of logits read the embedding and four writers.
    first, second = 3 * 1 + 2 * (1 + 3), 3 * (1 + 6) + 2 * (1 + 9)
    assert len(llama().routes) == first + second + 2 * (9 + 6) + 2 * (1 + 12)


def test_without_deltas_there_are_fewer() -> None:
    assert set(llama().routes) - set(llama(spd=True).routes) == {p for p in llama().routes if p[1].endswith(".delta")}


def test_sublayers_side_by_side_do_not_read_one_another() -> None:
    model = small("gpt_neox")
    wiring = wired(model, random_parts(model))
    assert into(wiring, "0.mlp.up") == into(wiring, "0.attn_fused.qkv") == {"embed": "stream"}
    assert into(wiring, "1.mlp.up") == dict.fromkeys(("embed", "0.attn_fused.o", "0.mlp.down"), "stream")


def test_a_fused_query_key_value_matrix_is_pulled() -> None:
    model = small("gpt2")
    assert into(wired(model, random_parts(model)), "1.attn_fused.o") == {"1.attn_fused.qkv": "backward"}


def test_a_stream_that_passes_a_live_sublayer_is_pulled_and_one_past_its_cut_maps_is_not() -> None:
    model = small("llama biased")
    wiring = wired(model, random_parts(model, only=("glu.up", "glu.gate")))
    assert into(wiring, "0.glu.up") == {"embed": "backward"}  # through the attention before it
    assert into(wiring, "1.glu.up") == {"embed": "backward", "0.glu.gate": "backward", "0.glu.up": "backward"}
    assert TOKENS.tolist() == wiring.readings["output"].ids.tolist()


def test_nothing_flows_from_later_to_earlier() -> None:
    order = {name: place for place, name in enumerate(llama().readings)}
    for target, source in llama().routes:
        own = source.removesuffix(".delta").removesuffix(".bias")
        assert own == "embed" or order[own] < order[target]


def test_token_ids_out_of_the_data_are_no_columns() -> None:
    wiring = llama()
    assert torch.equal(wiring.writings["embed"].ids, wiring.seen)
    assert wiring.writings["embed"].size == 64
