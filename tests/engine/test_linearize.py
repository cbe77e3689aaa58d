"""Every site, skip, missing layer and kind of sublayer, cut as its definition says."""

import pytest
import torch

from families import loaded, prompts
from graphs import by_autograd, by_engine, cross_layer, furthest, linearized, together, transcoders
from whence.engine.linearize import linearize
from whence.errors import UnsupportedModelError

IDS = prompts(1, 6)
# LayerNorm with learned positions; a parallel block; post-norms; a multiplier.
SHAPES = ("gpt2", "gpt_neox", "gemma2", "granite")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("reads", ["mlp_in", "mlp_in_normalized", "resid_mid"])
@pytest.mark.parametrize("writes", ["mlp_out", "mlp_out_normed"])
def test_a_dictionary_is_cut_in_at_its_sites(name: str, reads: str, writes: str) -> None:
    model = loaded(name, torch.float64)
    units = transcoders(model, reads=reads, writes=writes, skip=True)
    assert furthest(by_autograd(model, IDS, units, bos=(0,)), by_engine(model, IDS, units, bos=(0,))) < 1e-6


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("layers", [None, (0, 2), (1,)])
def test_a_cross_layer_feature_is_one_node_read_at_every_layer_it_writes(name: str, layers: tuple | None) -> None:
    model = loaded(name, torch.float64)
    units = cross_layer(model, layers=layers, skip=True)
    found = by_engine(model, IDS, units, bos=(0,))
    assert len(set(found.sources)) == len(found.sources)
    assert furthest(by_autograd(model, IDS, units, bos=(0,)), found) < 1e-6


@pytest.mark.parametrize("layers", [(0, 2), (1,), (2,)])
def test_an_mlp_without_a_dictionary_is_one_source_a_position(layers: tuple[int, ...]) -> None:
    model = loaded("llama", torch.float64)
    units = transcoders(model, layers=layers, features=tuple(range(9, 9 + len(layers))))
    found = by_engine(model, IDS, units)
    whole = [key for key in found.sources if ".mlp@" in key]
    assert whole == [f"{at}.mlp@{p}" for at in range(3) if at not in layers for p in range(6)]
    assert furthest(by_autograd(model, IDS, units), found) < 1e-6


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_a_dictionary_stands_for_a_whole_mixture_and_experts_are_sources_without_one(name: str) -> None:
    model = loaded(name, torch.float64)
    units = transcoders(model, layers=(0, 1))
    found = together(by_engine(model, IDS, units, bos=(0,)), "moe.expert", "moe")
    assert furthest(by_autograd(model, IDS, units, bos=(0,)), found) < 1e-6


def test_what_a_recurrence_writes_is_a_constant_source() -> None:
    model = loaded("jamba", torch.float64)
    units = transcoders(model, layers=(0,))
    found = together(by_engine(model, IDS, units), "moe.expert", "moe")
    assert [key for key in found.sources if "ssm" in key] == [f"{at}.ssm@{p}" for at in (0, 2) for p in range(6)]
    assert furthest(by_autograd(model, IDS, units), found) < 1e-6


@pytest.mark.parametrize("is_constant", [False, True])
def test_at_a_bos_position_no_feature_reads_and_the_whole_write_is_a_source_or_bias(is_constant: bool) -> None:
    model = loaded("llama", torch.float64)
    linear = linearize(model, model.batch(IDS), transcoders(model), position=5, bos=(0,), bos_is_constant=is_constant)
    assert all(0 not in linear.stream.groups[number].position() for number in linear.readers)
    for write in (write for write in linear.run.writes if write.writer.name == "mlp"):
        stage = linear.stream.stages[2 * write.writer.layer + 1]
        last = stage.sources[-1]
        assert linear.stream.groups[last.group].whole_at == (() if is_constant else (0,))
        source, constant = last.at(0, 1)[0], stage.constant[0]
        assert torch.equal(constant if is_constant else source, write.output[0, 0])
        assert not (source if is_constant else constant).any()


def test_the_memory_of_the_linear_model_is_counted_once_and_the_run_is_forgotten() -> None:
    model = loaded("llama", torch.float64)
    linear = linearized(model, IDS, transcoders(model))
    size = linear.bytes()
    least = sum(stage.attention.output.nbytes for stage in linear.stream.stages if stage.attention is not None)
    assert least < size < 1_000_000
    linear.forget_run()
    assert linear.trace is None
    assert linear.bytes() == size


def test_a_dictionary_of_another_width_or_too_many_layers_is_refused() -> None:
    model = loaded("llama", torch.float64)
    with pytest.raises(ValueError, match="layer 5; the model has layers 0 to 2"):
        linearized(model, IDS, transcoders(model, layers=(5,)))


def test_a_family_whose_attention_cannot_be_held_is_refused() -> None:
    model = loaded("bloom")
    with pytest.raises(UnsupportedModelError, match="no attribution graphs"):
        linearized(model, IDS, transcoders(model))
