"""Every listed family does what its entry claims."""

from collections import Counter

import pytest
import torch

from families import EVERY, FAMILIES, GRAPH_FAMILIES, LAYERS, MULTIMODAL, loaded, model_type
from whence.model.architectures import ARCHITECTURES, support
from whence.model.linear import weight_of

MIXTURES = ("mixtral", "olmoe", "qwen3_moe", "gpt_oss", "gpt_oss window")
WRITERS = {
    **{name: {"attn": LAYERS, "mlp": LAYERS} for name in EVERY},
    **{name: {"attn": LAYERS, "moe": LAYERS} for name in MIXTURES},
    "gpt_neo local": {"attn": 2, "mlp": 2},
    "qwen2_moe": {"attn": 3, "moe": 3, "moe.shared": 3},
    "qwen2_moe dense": {"attn": 3, "mlp": 1, "moe": 2, "moe.shared": 2},
    "mamba": {"ssm": 3},
    "mamba2": {"ssm": 3},
    "jamba": {"ssm": 2, "attn": 1, "mlp": 2, "moe": 1},
    "falcon_h1": {"ssm": 3, "attn": 3, "mlp": 3},
    "qwen3_next": {"ssm": 2, "attn": 1, "moe": 3, "moe.shared": 3},
    "recurrent_gemma": {"ssm": 2, "attn": 1, "mlp": 3},
}


@pytest.mark.parametrize("name", EVERY)
def test_the_self_check_passes_far_inside_its_bound(name: str) -> None:
    model = loaded(name)
    assert model.listed
    assert max(check.error for check in model.checks) < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_every_block_writes_through_the_sublayers_it_has(name: str) -> None:
    layout = loaded(name).layout
    assert Counter(writer.name for writer in layout.writers) == WRITERS[name]
    assert len({writer.key for writer in layout.writers}) == len(layout.writers)


@pytest.mark.parametrize("name", ["gpt2", "gptj", "gpt_neo", "gpt_neo local", "bloom", "falcon", "falcon new"])
def test_layer_norm_families_add_up_to_rounding_in_float64(name: str) -> None:
    assert max(check.error for check in loaded(name, torch.float64).checks) < 1e-12


def test_every_listed_family_has_a_tiny_model() -> None:
    assert {model_type(name) for name in FAMILIES} | MULTIMODAL.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", GRAPH_FAMILIES)
def test_attention_and_norms_can_be_held_where_graphs_are_promised(name: str) -> None:
    assert support(ARCHITECTURES[name]).graphs
    assert {"future", "reach", "frozen", "affine"} <= {check.name for check in loaded(name).checks}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_heads_divide_what_their_output_map_reads(name: str) -> None:
    layout = loaded(name).layout
    for writer in layout.attention:
        assert writer.heads is not None
        assert weight_of(writer.write).shape[1] % writer.heads == 0


def test_support_says_what_a_family_lacks() -> None:
    assert support(ARCHITECTURES["mamba"]).channels
    assert not support(ARCHITECTURES["mamba"]).heads
    assert not support(ARCHITECTURES["mamba"]).neurons
    assert not support(ARCHITECTURES["bloom"]).source_tokens
    assert not support(ARCHITECTURES["bloom"]).graphs
    assert support(ARCHITECTURES["mixtral"]).experts
    assert support(ARCHITECTURES["gpt2"]).source_tokens


def test_parallel_blocks_read_one_stream() -> None:
    stages = {name: {w.stage for w in loaded(name).layout.of(0)} for name in EVERY}
    for parallel in ("gptj", "gpt_neox", "phi", "cohere", "falcon", "falcon new", "stablelm parallel"):
        assert stages[parallel] == {0}
    for sequential in ("gpt2", "llama", "gpt_neox sequential", "falcon sequential", "stablelm", "falcon_h1"):
        assert stages[sequential] == {0, 1}
